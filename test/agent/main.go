// Agent runs in a guest of console_test.go and does what EC2's agent does in Windows
// at its first boot: it encrypts the administrator's password to the public key that
// the metadata tells, and prints it on the serial console.
//
//	agent PASSWORD
package main

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"

	"golang.org/x/crypto/ssh"
)

const publicKey = "http://169.254.169.254/latest/meta-data/public-keys/0/openssh-key"

func main() {
	if err := tell(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func tell(password string) error {
	r, err := http.Get(publicKey)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return fmt.Errorf("%q is no public key: %w", text, err)
	}
	crypto, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return fmt.Errorf("a key of type %s encrypts nothing", key.Type())
	}
	//lint:ignore SA1019 Windows's agent on EC2 encrypts so
	sealed, err := rsa.EncryptPKCS1v15(rand.Reader, crypto.CryptoPublicKey().(*rsa.PublicKey), []byte(password))
	if err != nil {
		return err
	}
	console, err := os.OpenFile("/dev/ttyS0", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(console, "\r\n<Password>\r\n%s\r\n</Password>\r\n", base64.StdEncoding.EncodeToString(sealed))
	if err != nil {
		return err
	}
	return console.Close()
}
