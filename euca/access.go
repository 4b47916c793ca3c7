package euca

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"mallee/wire/sigv4"
)

// Access is what a command has to know of the cloud that it uses.
type Access struct {
	EC2, S3     string // endpoints; "" is not known
	Region      string // that requests are signed for
	Credentials sigv4.Credentials
	Account     string // the user's account number
	Certificate string // the user's, a file
	PrivateKey  string // its key, a file
	CloudCert   string // what bundles are encrypted for, a file
	KeyPair     string // instances' where none is named
	Insecure    bool   // take any TLS certificate
}

// source of settings, one after another: what the command line names, the
// environment, the configuration files, and a cloud that runs on this machine.
type source struct {
	flags  *pflag.FlagSet
	env    func(string) string
	files  ini
	local  map[string]string // the running cloud's eucarc
	user   string            // in files
	region string            // in files
	chosen bool              // the region is the command line's: it goes before the environment
}

// accessOf finds what a command line says of the cloud, and what the rest says
// of what it doesn't. urlOf is the service that --url is for.
//
// A cloud's folder that is named by --data goes before everything but the other
// options; the default folder's cloud is only taken where nothing else names an
// endpoint or a key.
func accessOf(flags *pflag.FlagSet, env func(string) string, urlOf string) (Access, error) {
	c := source{flags: flags, env: env}
	if err := c.pairs(); err != nil {
		return Access{}, err
	}
	if flags.Changed("data") {
		if err := c.readLocal(); err != nil {
			return Access{}, err
		}
	}
	var err error
	if c.files, err = readINI(env); err != nil {
		return Access{}, err
	}
	if err := c.choose(); err != nil {
		return Access{}, err
	}
	a := c.resolve()
	if c.local == nil && a.EC2 == "" && a.S3 == "" && a.Credentials.AccessKey == "" && !flags.Changed("url") {
		switch err := c.readLocal(); {
		case err == nil:
			a = c.resolve()
		case !errors.Is(err, ErrNotRunning):
			return Access{}, err
		}
	}
	if url := c.option("url"); url != "" && urlOf == "s3" {
		a.S3 = url
	} else if url != "" {
		a.EC2 = url
	}
	a.EC2, a.S3 = strings.TrimRight(a.EC2, "/"), strings.TrimRight(a.S3, "/")
	return a, nil
}

// pairs refuses half a key, but where a policy that somebody else has signed
// takes the place of the secret.
func (c *source) pairs() error {
	if c.option("upload-policy-signature") != "" && !c.flags.Changed("secret-key") {
		return nil
	}
	if c.flags.Changed("access-key-id") != c.flags.Changed("secret-key") {
		return errors.New("arguments -I/--access-key-id and -S/--secret-key belong together")
	}
	return nil
}

// readLocal reads the eucarc of the cloud that runs on the folder.
func (c *source) readLocal() error {
	folder, err := OpenFolder(c.option("data"))
	if err != nil {
		return err
	}
	if _, err := folder.Holder(); err != nil {
		return err
	}
	c.local, err = folder.Eucarc()
	return err
}

// choose the user and region of the configuration files. Those that --region
// names have to be there, or the request would go to another cloud.
func (c *source) choose() error {
	spec := c.option("region")
	c.chosen = spec != ""
	spec = cmp.Or(spec, c.env("EUCA_DEFAULT_REGION"), c.env("EUCA_REGION"), c.env("AWS_DEFAULT_REGION"), c.files["global"]["default-region"])
	user, region, both := strings.Cut(spec, "@")
	if !both {
		user, region = "", spec
	}
	c.region = cmp.Or(region, c.files["global"]["default-region"])
	c.user = cmp.Or(user, c.files.get("region", c.region, "user"), c.files.get("region", c.region, "default-user"), c.files["global"]["default-user"])
	for kind, name := range map[string]string{"region": region, "user": user} {
		if c.chosen && name != "" && len(c.files.sections(kind, name)) == 0 && name != c.env("AWS_DEFAULT_REGION") {
			return fmt.Errorf("argument --region: no %s %q in the configuration files, which have: %s", kind, name, c.files.named(kind))
		}
	}
	return nil
}

func (c *source) option(name string) string {
	if f := c.flags.Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}

// find a setting: in the eucarc of a folder that was named, then by the
// environment and the files; the files first where the command line names a region.
func (c *source) find(filed string, variables ...string) string {
	var env string
	for _, name := range variables {
		env = cmp.Or(env, c.env(name))
	}
	values := []string{env, filed}
	if c.chosen {
		slices.Reverse(values)
	}
	if c.local != nil {
		return cmp.Or(c.fromLocal(variables), cmp.Or(values...))
	}
	return cmp.Or(values...)
}

func (c *source) fromLocal(variables []string) string {
	for _, name := range variables {
		if v := c.local[name]; v != "" {
			return v
		}
	}
	return ""
}

// resolve all settings but --url.
func (c *source) resolve() Access {
	region := func(option string) string { return c.files.get("region", c.region, option) }
	user := func(option string) string { return c.files.get("user", c.user, option) }
	a := Access{
		EC2:         c.find(region("ec2-url"), "EC2_URL"),
		S3:          c.find(region("s3-url"), "S3_URL"),
		Region:      cmp.Or(c.signingRegion(), "us-east-1"),
		Account:     strings.ReplaceAll(c.find(user("account-id"), "EC2_USER_ID", "EC2_ACCOUNT_NUMBER"), "-", ""),
		Certificate: home(c.find(user("certificate"), "EC2_CERT"), c.env),
		PrivateKey:  home(c.find(user("private-key"), "EC2_PRIVATE_KEY"), c.env),
		CloudCert:   home(c.find(region("certificate"), "EUCALYPTUS_CERT"), c.env),
		KeyPair:     region("ec2-default-keypair"),
		Insecure:    slices.Contains([]string{"false", "no", "off", "0"}, strings.ToLower(region("verify-ssl"))),
	}
	a.Credentials = c.credentials(user("key-id"), user("secret-key"))
	return a
}

// signingRegion is the name without namespaces; a wildcard's is none.
func (c *source) signingRegion() string {
	if c.local != nil {
		return c.local["AWS_DEFAULT_REGION"]
	}
	_, name := cutLast(c.region, ":")
	return name
}

func cutLast(s, sep string) (before, after string) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):]
	}
	return "", s
}

// credentials: a key and its secret always come from the same place.
func (c *source) credentials(fileKey, fileSecret string) sigv4.Credentials {
	if key := c.option("access-key-id"); key != "" {
		return sigv4.Credentials{AccessKey: key, Secret: c.option("secret-key"), Token: c.option("security-token")}
	}
	filed := sigv4.Credentials{AccessKey: fileKey, Secret: fileSecret}
	candidates := []sigv4.Credentials{c.ofEnvironment(), credentialFile(c.env("AWS_CREDENTIAL_FILE")), filed}
	if c.chosen {
		candidates = []sigv4.Credentials{candidates[2], candidates[0], candidates[1]}
	}
	if c.local != nil {
		local := sigv4.Credentials{AccessKey: c.local["AWS_ACCESS_KEY_ID"], Secret: c.local["AWS_SECRET_ACCESS_KEY"]}
		candidates = append([]sigv4.Credentials{local}, candidates...)
	}
	for _, found := range candidates {
		if found.AccessKey != "" && found.Secret != "" {
			found.Token = cmp.Or(c.option("security-token"), found.Token)
			return found
		}
	}
	return sigv4.Credentials{}
}

// ofEnvironment are the keys that the environment's variables hold.
func (c *source) ofEnvironment() sigv4.Credentials {
	return sigv4.Credentials{
		AccessKey: cmp.Or(c.env("AWS_ACCESS_KEY_ID"), c.env("AWS_ACCESS_KEY"), c.env("EC2_ACCESS_KEY")),
		Secret:    cmp.Or(c.env("AWS_SECRET_ACCESS_KEY"), c.env("AWS_SECRET_KEY"), c.env("EC2_SECRET_KEY")),
		Token:     cmp.Or(c.env("AWS_SESSION_TOKEN"), c.env("AWS_SECURITY_TOKEN"), c.env("EC2_SECURITY_TOKEN")),
	}
}

// credentialFile reads AWS's old form: AWSAccessKeyId=, AWSSecretKey=. A file
// that can't be read has none.
func credentialFile(path string) (c sigv4.Credentials) {
	text, err := os.ReadFile(path)
	if err != nil {
		return c
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, "=")
		switch strings.TrimSpace(name) {
		case "AWSAccessKeyId":
			c.AccessKey = strings.TrimSpace(value)
		case "AWSSecretKey":
			c.Secret = strings.TrimSpace(value)
		}
	}
	return c
}

// home replaces a leading ~ in a file's name.
func home(file string, env func(string) string) string {
	if below, ok := strings.CutPrefix(file, "~/"); ok {
		return env("HOME") + "/" + below
	}
	return file
}

// check that requests can be sent.
func (a Access) check() error {
	switch {
	case a.EC2 == "" && a.S3 == "":
		return errors.New("no cloud is known: run one by `mallee up`, source a cloud's eucarc, or name one by --region or --url")
	case a.Credentials.AccessKey == "":
		return errors.New("no access key is known: source a cloud's eucarc, or give -I and -S")
	}
	return nil
}

// Client of that cloud.
func (a Access) Client() *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = requestTimeout
	if a.Insecure {
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	}
	return &Client{
		Credentials: a.Credentials, Region: a.Region, EC2: a.EC2, S3: a.S3, Account: a.Account,
		http: http.Client{Timeout: requestTimeout, Transport: transport},
	}
}
