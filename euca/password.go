package euca

import (
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// passwordCommands show the administrator's password of Windows instances.
func passwordCommands() []command {
	return []command{
		{
			name: "get-password", short: "Show the administrator's password of a Windows instance",
			takes: "INSTANCE", as: "InstanceId",
			options: []option{text("k,priv-launch-key", "FILE", "private key of the key pair that the instance was launched with").required()},
			run:     getPassword,
		},
		{
			name: "get-password-data", short: "Show that password as the instance has encrypted it",
			takes: "INSTANCE", as: "InstanceId",
			run: calling("GetPasswordData", func(s *session, reply *element) {
				s.out.WriteString(reply.get("passwordData") + "\n")
			}),
		},
	}
}

// getPassword reads the key first, so that nothing is asked for in vain.
func getPassword(s *session) error {
	key, err := privateKey(s)
	if err != nil {
		return fmt.Errorf("argument -k/--priv-launch-key: %w", err)
	}
	reply, err := s.call("GetPasswordData")
	if err != nil {
		return err
	}
	password, err := decryptPassword(reply.get("passwordData"), key)
	if err != nil {
		return err
	}
	return s.show(reply, func() { s.out.WriteString(visible(password, "") + "\n") })
}

func privateKey(s *session) (*rsa.PrivateKey, error) {
	text, err := s.fileOrInput(s.text("priv-launch-key"), maxKeyFile)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		return nil, err
	}
	if key, ok := key.(*rsa.PrivateKey); ok {
		return key, nil
	}
	return nil, fmt.Errorf("the key is a %T, and passwords are encrypted to RSA keys only", key)
}

func decryptPassword(data string, key *rsa.PrivateKey) (string, error) {
	sealed, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(data), ""))
	if err != nil {
		return "", fmt.Errorf("the password is not base64: %w", err)
	}
	if len(sealed) == 0 {
		return "", errors.New("there is no password yet: the instance isn't Windows, has no key pair, or hasn't made one so far, which may take minutes")
	}
	//lint:ignore SA1019 Windows's agent on EC2 encrypts so; nobody else learns how it ended
	password, err := rsa.DecryptPKCS1v15(nil, key, sealed)
	if err != nil {
		return "", errors.New("the password can't be decrypted: is the private key that of the instance's key pair?")
	}
	return string(password), nil
}
