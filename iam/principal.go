package iam

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"mallee/cloud"
	"mallee/state"
)

// Principal is who a request came from.
type Principal struct {
	Account   cloud.AccountID
	User      string // name; empty for a role's session
	UserID    string
	Path      string // of the user; / where it is empty
	AccessKey string
	System    bool           // runs the cloud: may act for the whole of it
	Session   *cloud.Session // nil with a lasting access key
	Role      *cloud.Role    // of the session; nil for none
	Around    *Around        // what is known of the request; nil for nothing
}

// Around is what is known of a request beside who sent it.
type Around struct {
	Source netip.Addr
	Secure bool // it came by TLS
	Agent  string
}

// ARN names the principal: arn:aws:iam::123456789012:user/admin.
func (p Principal) ARN() string {
	switch s := p.Session; {
	case s != nil && s.Federated:
		return fmt.Sprintf("arn:aws:sts::%s:federated-user/%s", p.Account, s.Name)
	case p.Role != nil:
		return fmt.Sprintf("arn:aws:sts::%s:assumed-role/%s/%s", p.Account, p.Role.Name, s.Name)
	}
	return arn(p.Account, "user", p.Path, p.User)
}

// arn of what IAM keeps.
func arn(account cloud.AccountID, kind, path, name string) string {
	return fmt.Sprintf("arn:aws:iam::%s:%s/%s%s", account, kind, strings.TrimPrefix(path, "/"), name)
}

// roleARN is of the role that the principal has assumed; "" where there is none.
func (p Principal) roleARN() string {
	if p.Role == nil {
		return ""
	}
	return arn(p.Account, "role", p.Role.Path, p.Role.Name)
}

// rules says whether the principal may do everything in its account: the admin,
// whom no identity policy binds.
func (p Principal) rules() bool { return p.User == AdminUser && p.Role == nil }

// Principal finds who an active, lasting access key belongs to, and the secret
// that its signatures are made with.
func (s *IAM) Principal(accessKey string) (p Principal, secret string, ok bool) {
	view := s.Store.View()
	key, _, found := state.AccessKeys.Get(view, accessKey)
	if !found || !key.Active {
		return Principal{}, "", false
	}
	p, ok = s.user(view, key.Account, key.User)
	if !ok {
		return Principal{}, "", false
	}
	p.AccessKey = key.ID
	return s.opened(p, key.Sealed, key.ID)
}

// opened adds the secret; one that can't be read lets nobody in.
func (s *IAM) opened(p Principal, sealed []byte, id string) (Principal, string, bool) {
	secret, err := s.vault.open(sealed, id)
	if err != nil {
		s.Log.Error("an access key can't be used", "key", id, "err", err)
		return Principal{}, "", false
	}
	return p, secret, true
}

// user of an account, as a principal. A user without a record is none, but for
// admin, whom every account has.
func (s *IAM) user(r state.Reader, id cloud.AccountID, name string) (Principal, bool) {
	account, _, found := state.Accounts.Get(r, id)
	if !found {
		return Principal{}, false
	}
	p := Principal{Account: id, User: name, System: account.Alias == cloud.SystemAccount && name == AdminUser}
	u, err := users.find(r, id, name)
	if err != nil {
		return p, name == AdminUser
	}
	p.UserID, p.Path = u.ID, u.Path
	return p, true
}

// Holder finds who an access key belongs to, temporary ones too, of which it
// tells the token that must come along; a lasting key has none.
func (s *IAM) Holder(accessKey string) (p Principal, secret, token string, ok bool) {
	if !strings.HasPrefix(accessKey, sessionPrefix) {
		p, secret, ok = s.Principal(accessKey)
		return p, secret, "", ok
	}
	view := s.Store.View()
	session, _, found := state.Sessions.Get(view, accessKey)
	if !found || !s.Now().Before(session.Expires) {
		return Principal{}, "", "", false
	}
	if p, ok = s.sessionHolder(view, session); !ok {
		return Principal{}, "", "", false
	}
	p.AccessKey, p.Session = session.ID, session
	p, secret, ok = s.opened(p, session.Sealed, session.ID)
	return p, secret, s.vault.token(session.ID), ok
}

// sessionHolder is who has a session: as long as its user, key or role is there.
func (s *IAM) sessionHolder(r state.Reader, session *cloud.Session) (Principal, bool) {
	if session.Role != "" {
		role, _, found := state.Roles.Get(r, session.Role)
		if !found {
			return Principal{}, false
		}
		return Principal{Account: session.Account, UserID: role.ID + ":" + session.Name, Role: role}, true
	}
	if key, _, found := state.AccessKeys.Get(r, session.Key); session.Key != "" && (!found || !key.Active) {
		return Principal{}, false
	}
	p, ok := s.user(r, session.Account, session.User)
	if session.Federated {
		p.UserID, p.System = string(session.Account)+":"+session.Name, false
	}
	return p, ok
}

// useEvery is how often it is written down that a key is in use.
const useEvery = 15 * time.Minute

// Used notes that an access key signed a request. What can't be written is not
// worth failing the request for.
func (s *IAM) Used(p Principal, service, region string) {
	now := s.Now()
	last, _, found := state.KeyUses.Get(s.Store.View(), p.AccessKey)
	if p.Session != nil || found && now.Sub(last.At) < useEvery {
		return
	}
	err := s.Store.Update(s.ctx, func(tx *state.Tx) error {
		if _, _, there := state.AccessKeys.Get(tx, p.AccessKey); there {
			state.KeyUses.Put(tx, cloud.KeyUse{Key: p.AccessKey, Service: service, Region: region, At: now})
		}
		return nil
	})
	if err != nil {
		s.Log.Warn("the use of an access key can't be noted", "key", p.AccessKey, "err", err)
	}
}
