package iam

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"unicode/utf8"

	"mallee/cloud"
	"mallee/wire"
)

// rounds of PBKDF2 that a password goes through, as OWASP advises for SHA-256.
const rounds = 600_000

// hashed is a password with its salt, made before the transaction: it takes long.
func (s *IAM) hashed(password string) (*cloud.Login, error) {
	if n := utf8.RuneCountInString(password); n < 8 || n > 128 {
		return nil, wire.Errorf("PasswordPolicyViolation", "Password should have a minimum length of 8 and a maximum of 128 characters")
	}
	salt := make([]byte, 16)
	if _, err := io.ReadFull(s.Rand, salt); err != nil {
		return nil, fmt.Errorf("draw a salt: %w", err)
	}
	hash, err := pbkdf2.Key(sha256.New, password, salt, rounds, 32)
	return &cloud.Login{Salt: salt, Hash: hash, CreatedAt: s.Now()}, err
}

// opens says whether the password is the login's.
func opens(l *cloud.Login, password string) bool {
	hash, err := pbkdf2.Key(sha256.New, password, l.Salt, rounds, 32)
	return err == nil && subtle.ConstantTimeCompare(hash, l.Hash) == 1
}

type aLogin struct {
	UserName   string
	CreateDate *wire.Time
	Reset      bool `xml:"PasswordResetRequired"`
}

type oneLogin struct{ LoginProfile aLogin }

type createLoginInput struct {
	ofUser
	Password              string `wire:"Password,required"`
	PasswordResetRequired bool
	login                 *cloud.Login
}

func prepareLogin(c *call, in *createLoginInput) (err error) {
	in.login, err = c.hashed(in.Password)
	return err
}

func createLogin(c *call, in *createLoginInput) (*oneLogin, error) {
	u, err := in.find(c)
	if err != nil {
		return nil, err
	}
	if u.Login != nil {
		return nil, wire.Errorf("EntityAlreadyExists", "Login Profile for user %s already exists.", u.Name)
	}
	in.login.Reset = in.PasswordResetRequired
	users.edit(c, u, func(u *cloud.User) { u.Login = in.login })
	return &oneLogin{aLogin{u.Name, wire.At(in.login.CreatedAt), in.login.Reset}}, nil
}

type getLoginInput struct{ ofUser }

func getLogin(c *call, in *getLoginInput) (*oneLogin, error) {
	u, err := withLogin(in.find(c))
	if err != nil {
		return nil, err
	}
	return &oneLogin{aLogin{u.Name, wire.At(u.Login.CreatedAt), u.Login.Reset}}, nil
}

func withLogin(u *cloud.User, err error) (*cloud.User, error) {
	if err == nil && u.Login == nil {
		err = wire.Errorf("NoSuchEntity", "Login Profile for User %s cannot be found.", u.Name)
	}
	return u, err
}

type updateLoginInput struct {
	ofUser
	Password              string
	PasswordResetRequired *bool
	login                 *cloud.Login
}

func prepareUpdateLogin(c *call, in *updateLoginInput) (err error) {
	if in.Password != "" {
		in.login, err = c.hashed(in.Password)
	}
	return err
}

func updateLogin(c *call, in *updateLoginInput) (*none, error) {
	u, err := withLogin(in.find(c))
	if err != nil {
		return nil, err
	}
	users.edit(c, u, func(u *cloud.User) {
		if in.login != nil {
			u.Login.Salt, u.Login.Hash = in.login.Salt, in.login.Hash
		}
		if in.PasswordResetRequired != nil {
			u.Login.Reset = *in.PasswordResetRequired
		}
	})
	return &none{}, nil
}

type deleteLoginInput struct{ ofUser }

func deleteLogin(c *call, in *deleteLoginInput) (*none, error) {
	u, err := withLogin(in.find(c))
	if err != nil {
		return nil, err
	}
	users.edit(c, u, func(u *cloud.User) { u.Login = nil })
	return &none{}, nil
}

type changePasswordInput struct {
	OldPassword string `wire:"OldPassword,required"`
	NewPassword string `wire:"NewPassword,required"`
	was, login  *cloud.Login
}

func (in *changePasswordInput) arn(c *call) string { return c.principal.ARN() }

func prepareChange(c *call, in *changePasswordInput) error {
	u, err := withLogin(users.find(c.read, c.account, c.principal.User))
	if err != nil {
		return err
	}
	if in.was = u.Login; !opens(in.was, in.OldPassword) {
		return wire.Errorf("AccessDenied", "The old password was incorrect.")
	}
	in.login, err = c.hashed(in.NewPassword)
	return err
}

// changePassword where the old one is what it was when it was looked at.
func changePassword(c *call, in *changePasswordInput) (*none, error) {
	u, err := withLogin(users.find(c.tx, c.account, c.principal.User))
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(u.Login.Hash, in.was.Hash) != 1 {
		return nil, wire.Errorf("AccessDenied", "The old password was incorrect.")
	}
	users.edit(c, u, func(u *cloud.User) { u.Login.Salt, u.Login.Hash, u.Login.Reset = in.login.Salt, in.login.Hash, false })
	return &none{}, nil
}
