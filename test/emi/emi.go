// Package emi makes bundles, from the description of their format alone
// (euca2ools' and Amazon's): it shares no code with the program under test, so
// that both can't be wrong in the same way. It also makes what programs don't:
// bundles that are damaged, or lie.
package emi

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
)

// Keys are what a user bundles with.
type Keys struct {
	Account     string
	Cloud, User *rsa.PublicKey
	Signer      *rsa.PrivateKey // the user's
}

// ReadKeys from the files that eucarc names.
func ReadKeys(vars map[string]string) (k Keys, err error) {
	k.Account = vars["EC2_USER_ID"]
	if k.Cloud, err = readCertificate(vars["EUCALYPTUS_CERT"]); err != nil {
		return k, err
	}
	if k.User, err = readCertificate(vars["EC2_CERT"]); err != nil {
		return k, err
	}
	block, err := readPEM(vars["EC2_PRIVATE_KEY"])
	if err != nil {
		return k, err
	}
	key, err := x509.ParsePKCS8PrivateKey(block)
	if err != nil {
		return k, err
	}
	k.Signer = key.(*rsa.PrivateKey)
	return k, nil
}

func readCertificate(path string) (*rsa.PublicKey, error) {
	block, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(block)
	if err != nil {
		return nil, err
	}
	return c.PublicKey.(*rsa.PublicKey), nil
}

func readPEM(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM", path)
	}
	return block.Bytes, nil
}

// Bundle is a bundle in memory: what is uploaded.
type Bundle struct {
	Manifest string
	Parts    map[string][]byte // by file name
}

// Options of a bundle. The zero value is an honest one.
type Options struct {
	Kind     string // machine (default), kernel, ramdisk
	PartSize int    // bytes; 10 MiB by default
	Size     int64  // that the manifest claims; the image's by default
	Account  string // that the manifest names; the keys' by default
	Unsigned bool
	Before   func(text string) string // changes what will be signed
	After    func(text string) string // changes what was signed
}

// Make bundles an image under a prefix.
func Make(k Keys, prefix string, image []byte, o Options) (Bundle, error) {
	if o.Kind == "" {
		o.Kind = "machine"
	}
	if o.PartSize == 0 {
		o.PartSize = 10 << 20
	}
	if o.Size == 0 {
		o.Size = int64(len(image))
	}
	if o.Account == "" {
		o.Account = k.Account
	}
	archive, err := archived(prefix, image)
	if err != nil {
		return Bundle{}, err
	}
	var key, iv [16]byte
	rand.Read(key[:])
	rand.Read(iv[:])
	encrypted, err := encrypt(archive, key[:], iv[:])
	if err != nil {
		return Bundle{}, err
	}
	b := Bundle{Parts: map[string][]byte{}}
	var parts strings.Builder
	for n := 0; n*o.PartSize < len(encrypted); n++ {
		part := encrypted[n*o.PartSize : min((n+1)*o.PartSize, len(encrypted))]
		name := fmt.Sprintf("%s.part.%02d", prefix, n)
		b.Parts[name] = part
		fmt.Fprintf(&parts, `<part index="%d"><filename>%s</filename><digest algorithm="SHA1">%x</digest></part>`, n, name, sha1.Sum(part))
	}
	signed := machineConfiguration(o) + fmt.Sprintf(
		`<image><name>%s</name><user>%s</user><type>%s</type><digest algorithm="SHA1">%x</digest><size>%d</size><bundled_size>%d</bundled_size>%s<parts count="%d">%s</parts></image>`,
		prefix, o.Account, o.Kind, sha1.Sum(archive), o.Size, len(encrypted), secrets(k, key[:], iv[:]), len(b.Parts), &parts)
	if o.Before != nil {
		signed = o.Before(signed)
	}
	signature := "UNSIGNED"
	if !o.Unsigned {
		if signature, err = sign(k, signed); err != nil {
			return Bundle{}, err
		}
	}
	if o.After != nil {
		signed = o.After(signed)
	}
	b.Manifest = `<?xml version="1.0"?><manifest><version>2007-10-10</version><bundler><name>by hand</name><version>1</version><release>0</release></bundler>` +
		signed + "<signature>" + signature + "</signature></manifest>"
	return b, nil
}

func machineConfiguration(o Options) string {
	is := map[string]string{"kernel": "<kernel_id>true</kernel_id>", "ramdisk": "<ramdisk_id>true</ramdisk_id>"}[o.Kind]
	return "<machine_configuration><architecture>x86_64</architecture>" + is + "</machine_configuration>"
}

// archived is the image as the only member of a tar, in blocks of 10 KiB.
func archived(name string, image []byte) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(image)), Typeflag: tar.TypeReg})
	if err == nil {
		_, err = w.Write(image)
	}
	if err == nil {
		err = w.Close()
	}
	const block = 10240
	out.Write(make([]byte, (block-out.Len()%block)%block))
	return out.Bytes(), err
}

func encrypt(archive, key, iv []byte) ([]byte, error) {
	var zipped bytes.Buffer
	z, err := gzip.NewWriterLevel(&zipped, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(archive); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	pad := aes.BlockSize - zipped.Len()%aes.BlockSize
	zipped.Write(bytes.Repeat([]byte{byte(pad)}, pad))
	c, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	out := zipped.Bytes()
	cipher.NewCBCEncrypter(c, iv).CryptBlocks(out, out)
	return out, nil
}

// secrets are key and IV, for the cloud and for the user.
func secrets(k Keys, key, iv []byte) string {
	wrap := func(to *rsa.PublicKey, secret []byte) string {
		//lint:ignore SA1019 the format has it so
		wrapped, err := rsa.EncryptPKCS1v15(rand.Reader, to, []byte(hex.EncodeToString(secret)))
		if err != nil {
			panic(err) // 32 bytes fit every key
		}
		return hex.EncodeToString(wrapped)
	}
	return `<ec2_encrypted_key algorithm="AES-128-CBC">` + wrap(k.Cloud, key) + "</ec2_encrypted_key>" +
		`<user_encrypted_key algorithm="AES-128-CBC">` + wrap(k.User, key) + "</user_encrypted_key>" +
		"<ec2_encrypted_iv>" + wrap(k.Cloud, iv) + "</ec2_encrypted_iv>" +
		"<user_encrypted_iv>" + wrap(k.User, iv) + "</user_encrypted_iv>"
}

func sign(k Keys, text string) (string, error) {
	sum := sha1.Sum([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, k.Signer, crypto.SHA1, sum[:])
	return hex.EncodeToString(signature), err
}
