package euca

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"mallee/wire/sigv4"
)

const someINI = `
# where things are
[global]
default-region = home

[user alice]
key-id = AKIALICE
secret-key: a=b:c
account-id = 1234-5678-9012
certificate = ~/alice-cert.pem
private-key = /keys/alice.pem

[user *]
key-id = AKIANY
secret-key = any

; a cloud, and its likes
[region home]
user = alice
ec2-url = http://home/ec2/
s3-url = http://home/s3
certificate = /certs/home.pem
ec2-default-keypair = mine

[region ours:west]
ec2-url = http://west/ec2
user = bob
verify-ssl = no

[region far-*]
ec2-url = http://far/ec2
s3-url = use home
user = use home user

[region far-away]
ec2-url = http://away/ec2
`

func writeINI(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("EUCA_CONFIG_PATH", filepath.Join(dir, "*.ini"))
}

// accessWith is what a command line and an environment say, as "NAME=VALUE"s.
func accessWith(t *testing.T, line, environment string) (Access, error) {
	t.Helper()
	flags := pflag.NewFlagSet("euca-test", pflag.ContinueOnError)
	for _, o := range commonOptions {
		o.add(flags)
	}
	flags.String("data", "", "")
	if err := flags.Parse(strings.Fields(line)); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"HOME": "/home/me", "EUCA_CONFIG_PATH": os.Getenv("EUCA_CONFIG_PATH")}
	for _, assignment := range strings.Fields(environment) {
		name, value, _ := strings.Cut(assignment, "=")
		env[name] = value
	}
	return accessOf(flags, func(name string) string { return env[name] }, "")
}

func TestAccess(t *testing.T) {
	alone(t)
	writeINI(t, map[string]string{"1.ini": someINI, "2.ini": "[region home]\ns3-url=http://later/s3\n"})
	credentials := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(credentials, []byte("AWSAccessKeyId=AKIFILE\nAWSSecretKey=file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	alice := sigv4.Credentials{AccessKey: "AKIALICE", Secret: "a=b:c"}
	home := Access{
		EC2: "http://home/ec2", S3: "http://later/s3", Region: "home", Credentials: alice, Account: "123456789012",
		Certificate: "/home/me/alice-cert.pem", PrivateKey: "/keys/alice.pem", CloudCert: "/certs/home.pem", KeyPair: "mine",
	}
	with := func(a Access, change func(*Access)) Access { change(&a); return a }
	for _, c := range []struct {
		what, line, env string
		want            Access
	}{
		{"the default region", "", "", home},
		{"the environment goes before the files", "", "EC2_URL=http://env/ec2 EC2_CERT=/env.pem EC2_USER_ID=210987654321", with(home, func(a *Access) {
			a.EC2, a.Certificate, a.Account = "http://env/ec2", "/env.pem", "210987654321"
		})},
		{"options go before the environment", "-U http://typed/ec2/ -I AKITYPED -S typed --security-token tok", "EC2_URL=http://env/ec2 AWS_ACCESS_KEY=AKIENV AWS_SECRET_KEY=env AWS_SESSION_TOKEN=other",
			with(home, func(a *Access) {
				a.EC2, a.Credentials = "http://typed/ec2", sigv4.Credentials{AccessKey: "AKITYPED", Secret: "typed", Token: "tok"}
			})},
		{"so does the region that is typed", "--region home", "EC2_URL=http://env/ec2 AWS_ACCESS_KEY_ID=AKIENV AWS_SECRET_ACCESS_KEY=env", home},
		{"and what that leaves open is the environment's", "--region ours:west", "S3_URL=http://env/s3 EUCALYPTUS_CERT=/env.pem", Access{
			EC2: "http://west/ec2", S3: "http://env/s3", Region: "west", CloudCert: "/env.pem", Insecure: true, Credentials: sigv4.Credentials{AccessKey: "AKIANY", Secret: "any"},
		}},
		{"a region is found without its namespace", "--region alice@west", "", Access{
			EC2: "http://west/ec2", Region: "west", Insecure: true, Credentials: alice, Account: "123456789012", Certificate: "/home/me/alice-cert.pem", PrivateKey: "/keys/alice.pem",
		}},
		{"by a wildcard, whose values are another's", "--region far-off", "", with(Access{
			EC2: "http://far/ec2", S3: "http://later/s3", Region: "far-off", Credentials: alice, Account: "123456789012", Certificate: "/home/me/alice-cert.pem", PrivateKey: "/keys/alice.pem",
		}, func(*Access) {})},
		{"its own section goes before the wildcard's", "", "EUCA_DEFAULT_REGION=alice@far-away", Access{
			EC2: "http://away/ec2", S3: "http://later/s3", Region: "far-away", Credentials: alice, Account: "123456789012", Certificate: "/home/me/alice-cert.pem", PrivateKey: "/keys/alice.pem",
		}},
		{"keys go in pairs", "", "AWS_ACCESS_KEY_ID=AKIHALF", home},
		{"a user alone", "--region bob@", "", with(home, func(a *Access) {
			a.Credentials, a.Account, a.Certificate, a.PrivateKey = sigv4.Credentials{AccessKey: "AKIANY", Secret: "any"}, "", "", ""
		})},
		{"AWS's credential file", "", "AWS_CREDENTIAL_FILE=" + credentials, with(home, func(a *Access) {
			a.Credentials = sigv4.Credentials{AccessKey: "AKIFILE", Secret: "file"}
		})},
	} {
		got, err := accessWith(t, c.line, c.env)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v\nwant %+v", c.what, got, err, c.want)
		}
	}
}

// Where nothing names a cloud, it is the one that runs on the folder.
func TestAccessToTheLocalCloud(t *testing.T) {
	alone(t)
	f := Folder(filepath.Join(t.TempDir(), "cloud"))
	if _, err := accessWith(t, "--data "+string(f), ""); err == nil || !strings.Contains(err.Error(), "no cloud is running") {
		t.Errorf("before it runs: %v", err)
	}
	if err := os.Mkdir(string(f), 0o700); err != nil {
		t.Fatal(err)
	}
	holder(t, f)
	eucarc := "export EC2_URL=http://local/ec2\nexport S3_URL='http://local/s3'\nexport AWS_DEFAULT_REGION=mallee\nexport AWS_ACCESS_KEY_ID=AKIL\nexport AWS_SECRET_ACCESS_KEY=local\nexport EC2_USER_ID=000000000001\n"
	if err := os.WriteFile(f.Path("eucarc"), []byte(eucarc), 0o600); err != nil {
		t.Fatal(err)
	}
	want := Access{EC2: "http://local/ec2", S3: "http://local/s3", Region: "mallee", Account: "000000000001", Credentials: sigv4.Credentials{AccessKey: "AKIL", Secret: "local"}}
	if got, err := accessWith(t, "--data "+string(f), "EC2_URL=http://env/ec2 AWS_ACCESS_KEY=AKIENV AWS_SECRET_KEY=env"); err != nil || got != want {
		t.Errorf("a folder that is named: %+v, %v", got, err)
	}
	t.Setenv("XDG_DATA_HOME", filepath.Dir(string(f)))
	if err := os.Rename(string(f), filepath.Join(filepath.Dir(string(f)), "mallee")); err != nil {
		t.Fatal(err)
	}
	if got, err := accessWith(t, "", ""); err != nil || got != want {
		t.Errorf("the default folder: %+v, %v", got, err)
	}
	if got, err := accessWith(t, "", "EC2_URL=http://env/ec2"); err != nil || got.EC2 != "http://env/ec2" || got.Credentials != (sigv4.Credentials{}) {
		t.Errorf("another cloud must not get the local cloud's key: %+v, %v", got, err)
	}
}

func TestAccessRefuses(t *testing.T) {
	alone(t)
	for _, c := range []struct{ ini, line, want string }{
		{"", "-I AKI", "arguments -I/--access-key-id and -S/--secret-key belong together"},
		{someINI, "--region south", `argument --region: no region "south" in the configuration files, which have: far-*, far-away, home, ours:west`},
		{"[region x]", "--region eve@x", `argument --region: no user "eve" in the configuration files, which have: none`},
		{"[region x\n", "", "line 1: \"[region x\" is no section"},
		{"a = b\n", "", "line 1: \"a = b\" is no option of a section"},
		{"[user a]\nnonsense\n", "", "line 2: \"nonsense\" is no option of a section"},
	} {
		writeINI(t, map[string]string{"x.ini": c.ini})
		if _, err := accessWith(t, c.line, ""); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %s: %v", c.ini, c.line, err)
		}
	}
}

// A region that sends on to itself has no value.
func TestINILoop(t *testing.T) {
	c := ini{}
	if err := c.parse("[region a]\nec2-url = use b\n[region b]\nec2-url = use a\n"); err != nil {
		t.Fatal(err)
	}
	if got := c.get("region", "a", "ec2-url"); got != "" {
		t.Errorf("it is %q", got)
	}
}

// Without a cloud, the error says what to do.
func TestNoCloud(t *testing.T) {
	alone(t)
	_, _, err := typed(t, "euca-describe-instances")
	if err == nil || !strings.Contains(err.Error(), "euca-describe-instances: error: no cloud is known: run one by `mallee up`") {
		t.Errorf("no cloud: %v", err)
	}
	_, _, err = typed(t, "euca-describe-instances -U http://127.0.0.1:1")
	if err == nil || !strings.Contains(err.Error(), "no access key is known") {
		t.Errorf("no key: %v", err)
	}
	_, _, err = typed(t, "euca-describe-instances -U http://127.0.0.1:1 -I AKI -S s")
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody there: %v", err)
	}
}

func FuzzINI(f *testing.F) {
	f.Add(someINI)
	f.Add("[region *:x]\nuse = use\n[region [a-]\nb=c")
	f.Fuzz(func(t *testing.T, text string) {
		c := ini{}
		if c.parse(text) != nil {
			return
		}
		for section, options := range c {
			kind, name, _ := strings.Cut(section, " ")
			for option := range options {
				c.get(kind, name, option)
			}
		}
	})
}
