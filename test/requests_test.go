package test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"mallee/test/cloud"
)

// request is a query for EC2 that is still to be signed, by Amazon's signer.
type request struct {
	path    string
	service string // in the signature's scope
	body    string
	at      time.Time
	access  cloud.Access
}

func (w *world) request(t *testing.T, parameters ...string) request {
	t.Helper()
	a, err := w.Access()
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"Version": {"2016-11-15"}}
	for _, p := range parameters {
		name, value, _ := strings.Cut(p, "=")
		form.Set(name, value)
	}
	return request{"/", "ec2", form.Encode(), time.Now(), a}
}

func (r request) signed(t *testing.T) *http.Request {
	t.Helper()
	out, err := http.NewRequestWithContext(within(t, soon), http.MethodPost, r.access.Endpoint+r.path, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	out.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	sum := sha256.Sum256([]byte(r.body))
	who := aws.Credentials{AccessKeyID: r.access.AccessKey, SecretAccessKey: r.access.Secret}
	if err := v4.NewSigner().SignHTTP(context.Background(), who, out, hex.EncodeToString(sum[:]), r.service, r.access.Region, r.at); err != nil {
		t.Fatal(err)
	}
	return out
}

// presigned puts everything into the URL, which holds for so many seconds.
func (r request) presigned(t *testing.T, seconds string) *http.Request {
	t.Helper()
	out, err := http.NewRequestWithContext(within(t, soon), http.MethodGet, r.access.Endpoint+r.path+"?"+r.body+"&X-Amz-Expires="+seconds, nil)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(nil)
	who := aws.Credentials{AccessKeyID: r.access.AccessKey, SecretAccessKey: r.access.Secret}
	signed, _, err := v4.NewSigner().PresignHTTP(context.Background(), who, out, hex.EncodeToString(sum[:]), r.service, r.access.Region, r.at)
	if err != nil {
		t.Fatal(err)
	}
	if out.URL, err = url.Parse(signed); err != nil {
		t.Fatal(err)
	}
	return out
}

// answered sends a request and returns the error code, or "" for a success.
func answered(t *testing.T, r *http.Request) (code, body string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("<Code>([^<]+)</Code>").FindSubmatch(text)
	switch {
	case found != nil:
		return string(found[1]), string(text)
	case resp.StatusCode != http.StatusOK:
		return resp.Status, string(text)
	}
	return "", string(text)
}

// TestSignatures: who has not the secret, or comes too late, gets in by no way.
func TestSignatures(t *testing.T) {
	w := theWorld(t)
	good := w.request(t, "Action=DescribeRegions")
	with := func(change func(*request)) request {
		r := good
		change(&r)
		return r
	}
	minutes := func(n int) time.Time { return time.Now().Add(time.Duration(n) * time.Minute) }
	altered := func(r *http.Request, body string) *http.Request {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		return r
	}
	unsigned := good.signed(t)
	unsigned.Header.Del("Authorization")
	late := good.presigned(t, "60")
	query := late.URL.Query()
	query.Set("Action", "DescribeInstances")
	late.URL.RawQuery = query.Encode()

	for _, test := range []struct {
		name string
		r    *http.Request
		code string
	}{
		{"as it should be", good.signed(t), ""},
		{"five minutes ago", with(func(r *request) { r.at = minutes(-5) }).signed(t), ""},
		{"an hour ago", with(func(r *request) { r.at = minutes(-60) }).signed(t), "RequestExpired"},
		{"in an hour", with(func(r *request) { r.at = minutes(60) }).signed(t), "RequestExpired"},
		{"another secret", with(func(r *request) { r.access.Secret += "x" }).signed(t), "AuthFailure"},
		{"another key", with(func(r *request) { r.access.AccessKey = "AKIAIOSFODNN7EXAMPLE" }).signed(t), "AuthFailure"},
		{"another body", altered(good.signed(t), "Action=DescribeImages&Version=2016-11-15"), "AuthFailure"},
		{"no signature", unsigned, "MissingAuthenticationToken"},
		{"for another service", with(func(r *request) { r.service, r.path = "s3", "/services/compute" }).signed(t), "SignatureDoesNotMatch"},
		{"presigned", good.presigned(t, "60"), ""},
		{"presigned and over", with(func(r *request) { r.at = minutes(-5) }).presigned(t, "60"), "RequestExpired"},
		{"presigned for a month", good.presigned(t, "2592000"), "IncompleteSignature"},
		{"presigned and altered", late, "AuthFailure"},
	} {
		if code, body := answered(t, test.r); code != test.code {
			t.Errorf("%s: %q, want %q: %s", test.name, code, test.code, body)
		}
	}
}

// TestServices are told apart by their paths, as Eucalyptus has them, and by the
// signature, as Amazon's clients sign.
func TestServices(t *testing.T) {
	w := theWorld(t)
	for _, test := range []struct{ path, service, action, version, has string }{
		{"/", "ec2", "DescribeRegions", "2016-11-15", "<regionName>"},
		{"/services/compute", "ec2", "DescribeRegions", "2016-11-15", "<regionName>"},
		{"/services/compute/", "ec2", "DescribeRegions", "2012-12-01", "ec2.amazonaws.com/doc/2012-12-01/"},
		{"/services/Eucalyptus", "ec2", "DescribeRegions", "2016-11-15", "<regionName>"},
		{"/services/Euare", "iam", "GetUser", "2010-05-08", "<UserName>"},
		{"/", "iam", "GetUser", "2010-05-08", "<UserName>"},
		{"/services/Tokens", "sts", "GetCallerIdentity", "2011-06-15", "<Account>"},
	} {
		r := w.request(t, "Action="+test.action, "Version="+test.version)
		r.path, r.service = test.path, test.service
		if code, body := answered(t, r.signed(t)); code != "" || !strings.Contains(body, test.has) {
			t.Errorf("%s of %s at %s: %s: %s", test.action, test.service, test.path, code, body)
		}
	}
	a, err := w.Access()
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.STS().GetCallerIdentity(within(t, soon), &sts.GetCallerIdentityInput{})
	if err != nil || *out.Account != a.Account || !strings.Contains(*out.Arn, a.Account) {
		t.Errorf("I am %+v (%v), and eucarc says account %s", out, err, a.Account)
	}
}

// TestEucarc has what Eucalyptus's tools and Amazon's look for, for its owner only.
func TestEucarc(t *testing.T) {
	w := theWorld(t)
	info, err := os.Stat(w.Path("eucarc"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("eucarc has the mode %v", info.Mode())
	}
	shell := exec.Command("sh", "-c", ". "+w.Path("eucarc")+" && env -0")
	// What its user has of another cloud must not be taken for this one's.
	shell.Env = []string{"PATH=" + os.Getenv("PATH"), "AWS_SESSION_TOKEN=old", "AWS_PROFILE=old", "AWS_ACCESS_KEY_ID=old"}
	out, err := shell.Output()
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{}
	for v := range strings.SplitSeq(string(out), "\x00") {
		name, value, _ := strings.Cut(v, "=")
		vars[name] = value
	}
	if vars["AWS_SESSION_TOKEN"] != "" || vars["AWS_PROFILE"] != "" {
		t.Errorf("after eucarc there is still the session %s and the profile %s of before", vars["AWS_SESSION_TOKEN"], vars["AWS_PROFILE"])
	}
	endpoint, err := w.Endpoint()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"EC2_URL", "S3_URL", "EUARE_URL", "TOKEN_URL", "AWS_ENDPOINT_URL"} {
		if !strings.HasPrefix(vars[name], endpoint) {
			t.Errorf("%s is %q, and the cloud is at %s", name, vars[name], endpoint)
		}
	}
	for name, form := range map[string]string{
		"AWS_ACCESS_KEY_ID": `^AKI[A-Z0-9]{17}$`, "AWS_SECRET_ACCESS_KEY": `^[A-Za-z0-9]{40}$`, "AWS_DEFAULT_REGION": `^[a-z0-9-]+$`, "EC2_USER_ID": `^[0-9]{12}$`,
	} {
		if !regexp.MustCompile(form).MatchString(vars[name]) {
			t.Errorf("%s is %q, which isn't of the form %s", name, vars[name], form)
		}
	}
	if vars["EC2_ACCESS_KEY"] != vars["AWS_ACCESS_KEY_ID"] || vars["EC2_SECRET_KEY"] != vars["AWS_SECRET_ACCESS_KEY"] {
		t.Errorf("Eucalyptus's tools and Amazon's get different keys")
	}
	for _, name := range []string{"EC2_CERT", "EC2_PRIVATE_KEY", "EUCALYPTUS_CERT"} {
		if text, err := os.ReadFile(vars[name]); err != nil || !bytes.HasPrefix(text, []byte("-----BEGIN ")) {
			t.Errorf("%s names %s, which isn't a PEM file (%v)", name, vars[name], err)
		}
	}
	if info, err := os.Stat(vars["EC2_PRIVATE_KEY"]); err != nil || info.Mode() != 0o600 {
		t.Errorf("the private key: %v, %v", info, err)
	}
}

// TestDryRun changes nothing, whatever it is asked of.
func TestDryRun(t *testing.T) {
	w := theWorld(t)
	client := w.ec2(t)
	i := run(t, w.Cloud, &ec2.RunInstancesInput{ImageId: &w.hello}).Instances[0]
	await(t, w.Cloud, types.InstanceStateNameRunning, *i.InstanceId)
	before := snapshot(t, w.Cloud)
	yes, ids := aws.Bool(true), []string{*i.InstanceId}
	_, err := client.RunInstances(within(t, soon), &ec2.RunInstancesInput{ImageId: &w.hello, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), DryRun: yes})
	refused(t, err, "DryRunOperation")
	_, err = client.TerminateInstances(within(t, soon), &ec2.TerminateInstancesInput{InstanceIds: ids, DryRun: yes})
	refused(t, err, "DryRunOperation")
	_, err = client.RebootInstances(within(t, soon), &ec2.RebootInstancesInput{InstanceIds: ids, DryRun: yes})
	refused(t, err, "DryRunOperation")
	_, err = client.DeregisterImage(within(t, soon), &ec2.DeregisterImageInput{ImageId: &w.hello, DryRun: yes})
	refused(t, err, "DryRunOperation")
	_, err = client.CreateKeyPair(within(t, soon), &ec2.CreateKeyPairInput{KeyName: aws.String("dry"), KeyType: types.KeyTypeEd25519, DryRun: yes})
	refused(t, err, "DryRunOperation")
	_, err = client.CreateTags(within(t, soon), &ec2.CreateTagsInput{Resources: ids, Tags: []types.Tag{{Key: aws.String("dry")}}, DryRun: yes})
	refused(t, err, "DryRunOperation")
	_, err = client.DescribeInstances(within(t, soon), &ec2.DescribeInstancesInput{DryRun: yes})
	refused(t, err, "DryRunOperation")
	if after := snapshot(t, w.Cloud); after != before {
		t.Errorf("after dry runs the cloud has %s, and before %s", after, before)
	}
	await(t, w.Cloud, types.InstanceStateNameRunning, ids...)
}

// snapshot of what dry runs could have changed.
func snapshot(t *testing.T, c *cloud.Cloud) string {
	t.Helper()
	client := ec2Of(t, c)
	var text strings.Builder
	instances, err := client.DescribeInstances(within(t, soon), &ec2.DescribeInstancesInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range instances.Reservations {
		for _, i := range r.Instances {
			fmt.Fprint(&text, *i.InstanceId, " ", i.State.Name, " ", len(i.Tags), "; ")
		}
	}
	keys, err := client.DescribeKeyPairs(within(t, soon), &ec2.DescribeKeyPairsInput{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&text, "%d images, %d keys", imageCount(t, c), len(keys.KeyPairs))
	return text.String()
}

// TestClientToken: the same call again makes nothing more.
func TestClientToken(t *testing.T) {
	w := theWorld(t)
	token := rand.Text()
	in := ec2.RunInstancesInput{ImageId: &w.hello, MinCount: aws.Int32(2), MaxCount: aws.Int32(2), ClientToken: &token}
	first := run(t, w.Cloud, &in)
	again, err := w.ec2(t).RunInstances(within(t, soon), &in)
	if err != nil {
		t.Fatal(err)
	}
	if *again.ReservationId != *first.ReservationId || !sameStrings(idsOf(again.Instances), idsOf(first.Instances)) {
		t.Errorf("the same call made first %v and then %v", idsOf(first.Instances), idsOf(again.Instances))
	}
	in.InstanceType = "m1.large"
	_, err = w.ec2(t).RunInstances(within(t, soon), &in)
	refused(t, err, "IdempotentParameterMismatch", token)
}

// TestRefusals name the parameter and the value, and make nothing.
func TestRefusals(t *testing.T) {
	w := theWorld(t)
	newKey(t, w.Cloud, "taken", types.KeyTypeEd25519)
	before := snapshot(t, w.Cloud)
	run := func(parameters ...string) []string {
		return append([]string{"Action=RunInstances", "ImageId=" + w.hello, "MinCount=1", "MaxCount=1"}, parameters...)
	}
	for _, test := range []struct {
		parameters []string
		code       string
		says       []string
	}{
		{[]string{"Action=RunInstances", "MinCount=1", "MaxCount=1"}, "MissingParameter", []string{"ImageId"}},
		{run("MinCount=none"), "InvalidParameterValue", []string{"MinCount", "none"}},
		{run("MinCount=2"), "InvalidParameterCombination", []string{"MaxCount"}},
		{run("MinCount=0", "MaxCount=0"), "InvalidParameterValue", []string{"MinCount"}},
		{run("MaxCount=100000"), "InvalidParameterValue", []string{"MaxCount", "100000"}},
		{run("InstanceType=m9.huge"), "InvalidParameterValue", []string{"InstanceType", "m9.huge"}},
		{run("KeyName=nobody's"), "InvalidKeyPair.NotFound", []string{"nobody's"}},
		{run("ImageId=emi-ffffffff"), "InvalidAMIID.NotFound", []string{"emi-ffffffff"}},
		{run("ImageId=image"), "InvalidAMIID.Malformed", []string{"image"}},
		{run("SecurityGroup.1=nobody's"), "InvalidGroup.NotFound", []string{"nobody's"}},
		{run("UserData=!!!"), "InvalidUserData.Malformed", []string{"UserData"}},
		{run("UserData=" + strings.Repeat("QUFB", 6000)), "InvalidParameterValue", []string{"UserData"}},
		{run("KernelId=" + w.kernel), "InvalidParameterCombination", []string{"KernelId"}},
		{run("Placement.AvailabilityZone=mars"), "InvalidParameterValue", []string{"mars"}},
		{run("Placement.Tenancy=host"), "UnsupportedOperation", []string{"Tenancy", "host"}},
		{run("NetworkInterface.1.Ipv6AddressCount=1"), "UnknownParameter", []string{"NetworkInterface.1.Ipv6AddressCount"}},
		{run("LaunchTemplate.LaunchTemplateName=t"), "UnknownParameter", []string{"LaunchTemplate.LaunchTemplateName"}},
		{run("Colour=red"), "UnknownParameter", []string{"Colour"}},
		{run("TagSpecification.1.ResourceType=snapshot", "TagSpecification.1.Tag.1.Key=a"), "InvalidParameterValue", []string{"snapshot"}},
		{run("TagSpecification.1.ResourceType=instance", "TagSpecification.1.Tag.1.Key=aws:a"), "InvalidParameterValue", []string{"aws:a"}},
		{[]string{"Action=TerminateInstances"}, "MissingParameter", []string{"InstanceId"}},
		{[]string{"Action=TerminateInstances", "InstanceId.1=i-ffffffff"}, "InvalidInstanceID.NotFound", []string{"i-ffffffff"}},
		{[]string{"Action=TerminateInstances", "InstanceId.1=it"}, "InvalidInstanceID.Malformed", []string{"it"}},
		{[]string{"Action=DescribeInstances", "Filter.1.Name=colour", "Filter.1.Value.1=red"}, "InvalidParameterValue", []string{"colour"}},
		{[]string{"Action=DescribeInstances", "MaxResults=1"}, "InvalidParameterValue", []string{"MaxResults"}},
		{[]string{"Action=DescribeInstances", "NextToken=garbage"}, "InvalidNextToken", []string{"garbage"}},
		{[]string{"Action=CreateKeyPair", "KeyName=taken"}, "InvalidKeyPair.Duplicate", []string{"taken"}},
		{[]string{"Action=CreateKeyPair", "KeyName=new", "KeyType=dsa"}, "InvalidParameterValue", []string{"KeyType", "dsa"}},
		{[]string{"Action=ImportKeyPair", "KeyName=new", "PublicKeyMaterial=QUFB"}, "InvalidKey.Format", nil},
		{[]string{"Action=GetConsoleOutput", "InstanceId=i-ffffffff"}, "InvalidInstanceID.NotFound", []string{"i-ffffffff"}},
		{[]string{"Action=CreateTags", "ResourceId.1=i-ffffffff", "Tag.1.Key=a"}, "InvalidInstanceID.NotFound", []string{"i-ffffffff"}},
		{[]string{"Action=CreateVpc"}, "InvalidAction", []string{"CreateVpc"}},
	} {
		code, body := answered(t, w.request(t, test.parameters...).signed(t))
		if code != test.code {
			t.Errorf("%.200v: %s, want %s: %s", test.parameters, code, test.code, body)
		}
		for _, word := range test.says {
			if !strings.Contains(strings.NewReplacer("&#39;", "'", "&#34;", `"`).Replace(body), word) {
				t.Errorf("%.200v: the answer does not name %q: %s", test.parameters, word, body)
			}
		}
	}
	if after := snapshot(t, w.Cloud); after != before {
		t.Errorf("after refusals the cloud has %s, and before %s", after, before)
	}
}

// TestCrowd: many clients at once get what they ask for, and ids of their own.
func TestCrowd(t *testing.T) {
	w := theWorld(t)
	before := qemus(t, w.Cloud)
	const clients = 8
	replies := make(chan *ec2.RunInstancesOutput, clients)
	for range clients {
		client := w.ec2(t)
		go func() {
			out, err := client.RunInstances(within(t, soon), &ec2.RunInstancesInput{ImageId: &w.hello, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), InstanceType: "t1.micro"})
			if err != nil {
				t.Error(err)
			}
			replies <- out
		}()
	}
	var ids []string
	addresses := map[string]bool{}
	for range clients {
		if out := <-replies; out != nil {
			ids = append(ids, idsOf(out.Instances)...)
			addresses[*out.Instances[0].PrivateIpAddress], addresses[*out.Instances[0].PublicIpAddress] = true, true
		}
	}
	t.Cleanup(func() { terminate(t, w.Cloud, ids...) })
	if len(ids) != clients || len(addresses) != 2*clients {
		t.Errorf("%d calls made the instances %v with the addresses %v", clients, ids, addresses)
	}
	await(t, w.Cloud, types.InstanceStateNameRunning, ids...)
	if now := qemus(t, w.Cloud); len(now) != len(before)+clients {
		t.Errorf("there were %d machines, and %d calls made of them %d", len(before), clients, len(now))
	}
}

// TestWalrus keeps what it is given, and gives it to nobody else.
func TestWalrus(t *testing.T) {
	w := theWorld(t)
	a, err := w.Access()
	if err != nil {
		t.Fatal(err)
	}
	client := a.S3()
	name := aws.String("things")
	if _, err := client.CreateBucket(within(t, soon), &s3.CreateBucketInput{Bucket: name}); err != nil {
		t.Fatal(err)
	}
	body := someBytes(3 << 20)
	if _, err := client.PutObject(within(t, soon), &s3.PutObjectInput{Bucket: name, Key: aws.String("a/b c"), Body: bytes.NewReader(body)}); err != nil {
		t.Fatal(err)
	}
	got, err := client.GetObject(within(t, soon), &s3.GetObjectInput{Bucket: name, Key: aws.String("a/b c"), Range: aws.String("bytes=-5")})
	if err != nil {
		t.Fatal(err)
	}
	tail, err := io.ReadAll(got.Body)
	if err != nil || !bytes.Equal(tail, body[len(body)-5:]) {
		t.Errorf("the last 5 bytes are %x (%v), want %x", tail, err, body[len(body)-5:])
	}
	resp, err := http.Get(a.Endpoint + "/services/objectstorage/things/a/b%20c")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a stranger gets a private object: %s", resp.Status)
	}
	a.Secret += "x"
	_, err = a.S3().GetObject(within(t, soon), &s3.GetObjectInput{Bucket: name, Key: aws.String("a/b c")})
	refused(t, err, "SignatureDoesNotMatch")
	if _, err := client.DeleteObject(within(t, soon), &s3.DeleteObjectInput{Bucket: name, Key: aws.String("a/b c")}); err != nil {
		t.Error(err)
	}
	if _, err := client.DeleteBucket(within(t, soon), &s3.DeleteBucketInput{Bucket: name}); err != nil {
		t.Error(err)
	}
}
