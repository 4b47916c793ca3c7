package policy

import (
	"errors"
	"strings"
	"testing"
)

const (
	johnsAccount = "123456789012"
	john         = "arn:aws:iam::123456789012:user/John"
	session      = "arn:aws:sts::123456789012:assumed-role/demo/TestAR"
	demoRole     = "arn:aws:iam::123456789012:role/demo"
)

func parse(tb testing.TB, document string, kind Kind) *Policy {
	tb.Helper()
	p, err := Parse(document, kind)
	if err != nil {
		tb.Fatalf("%s: %v", document, err)
	}
	return p
}

func sources(list ...*Policy) (out []Source) {
	for _, p := range list {
		out = append(out, Source{Policy: p})
	}
	return out
}

// asked is a request of John's; context is KEY, VALUE, KEY, VALUE…
func asked(action, resource string, context ...string) *Request {
	c := Context{}
	for i := 0; i < len(context); i += 2 {
		c.Add(context[i], context[i+1])
	}
	return NewRequest(Request{Principal: Principal{ARN: john, Account: johnsAccount}, Action: action, Resource: resource, Context: c})
}

// statement of the current version.
func document(statements ...string) string {
	return `{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`
}

// Examples of the IAM User Guide, and what it says of them.
func TestDocumentedExamples(t *testing.T) {
	const (
		home = `{"Effect":"Allow","Action":["s3:ListBucket"],"Resource":["arn:aws:s3:::amzn-s3-demo-bucket"],"Condition":{"StringLike":{"s3:prefix":["${aws:username}/*"]}}},
			{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":["arn:aws:s3:::amzn-s3-demo-bucket/${aws:username}/*"]}`
		team     = `{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::teams/${aws:PrincipalTag/team, 'company-wide'}/*"}`
		notIAM   = `{"Effect":"Allow","NotAction":"iam:*","Resource":"*"}`
		notThis  = `{"Effect":"Deny","Action":"s3:*","NotResource":["arn:aws:s3:::HRBucket/Payroll","arn:aws:s3:::HRBucket/Payroll/*"]},{"Effect":"Allow","Action":"s3:*","Resource":"*"}`
		byDate   = `{"Effect":"Allow","Action":"service:*","Resource":"*","Condition":{"DateGreaterThan":{"aws:CurrentTime":"2020-04-01T00:00:00Z"},"DateLessThan":{"aws:CurrentTime":"2020-06-30T23:59:59Z"}}}`
		byIP     = `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"NotIpAddress":{"aws:SourceIp":["192.0.2.0/24","203.0.113.0/24"]},"Bool":{"aws:ViaAWSService":"false"}}},{"Effect":"Allow","Action":"*","Resource":"*"}`
		owner    = `{"Effect":"Allow","Action":["ec2:StartInstances","ec2:StopInstances"],"Resource":"arn:aws:ec2:*:*:instance/*","Condition":{"StringEquals":{"aws:ResourceTag/Owner":"${aws:username}"}}}`
		small    = `{"Effect":"Allow","Action":"ec2:RunInstances","Resource":"*","Condition":{"StringLikeIfExists":{"ec2:InstanceType":["t1.*","t2.*","m3.*"]}}}`
		tagged   = `{"Effect":"Allow","Action":"ec2:CreateVolume","Resource":"*","Condition":{"ForAllValues:StringEquals":{"aws:TagKeys":["environment","cost-center"]}}}`
		some     = `{"Effect":"Deny","Action":"dynamodb:*","Resource":"*","Condition":{"ForAnyValue:StringEquals":{"dynamodb:Attributes":["ID","PostDateTime"]}}},{"Effect":"Allow","Action":"dynamodb:*","Resource":"*"}`
		mfa      = `{"Effect":"Deny","Action":"ec2:*","Resource":"*","Condition":{"BoolIfExists":{"aws:MultiFactorAuthPresent":"false"}}},{"Effect":"Allow","Action":"ec2:*","Resource":"*"}`
		noToken  = `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Null":{"aws:TokenIssueTime":"true"}}}`
		byNumber = `{"Effect":"Allow","Action":"s3:ListBucket","Resource":"*","Condition":{"NumericLessThanEquals":{"s3:max-keys":"10"}}}`
		bySource = `{"Effect":"Allow","Action":"sqs:SendMessage","Resource":"*","Condition":{"ArnLike":{"aws:SourceArn":"arn:aws:sns:*:123456789012:my-*"}}}`
		byBytes  = `{"Effect":"Allow","Action":"a:B","Resource":"*","Condition":{"BinaryEquals":{"a:key":"QmluYXJ5VmFsdWVJbkJhc2U2NA=="}}}`
		literals = `{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/${*}x${$}{?}"}`
	)
	for _, c := range []struct {
		name, statements string
		q                *Request
		want             Verdict
	}{
		{"home, listed", home, asked("s3:ListBucket", "arn:aws:s3:::amzn-s3-demo-bucket", "aws:username", "John", "s3:prefix", "John/x"), Allowed},
		{"another's home, listed", home, asked("s3:ListBucket", "arn:aws:s3:::amzn-s3-demo-bucket", "aws:username", "John", "s3:prefix", "Jane/x"), ImplicitDeny},
		{"home, read", home, asked("s3:GetObject", "arn:aws:s3:::amzn-s3-demo-bucket/John/a/b", "aws:username", "John"), Allowed},
		{"no name", home, asked("s3:GetObject", "arn:aws:s3:::amzn-s3-demo-bucket/John/a"), ImplicitDeny},
		{"a name of a star is a star", home, asked("s3:GetObject", "arn:aws:s3:::amzn-s3-demo-bucket/Jane/a", "aws:username", "*"), ImplicitDeny},
		{"team", team, asked("s3:GetObject", "arn:aws:s3:::teams/yellow/a", "aws:PrincipalTag/team", "yellow"), Allowed},
		{"default team", team, asked("s3:GetObject", "arn:aws:s3:::teams/company-wide/a"), Allowed},
		{"not the default team", team, asked("s3:GetObject", "arn:aws:s3:::teams/company-wide/a", "aws:principaltag/TEAM", "yellow"), ImplicitDeny},
		{"NotAction", notIAM, asked("ec2:RunInstances", "*"), Allowed},
		{"NotAction's own", notIAM, asked("IAM:createuser", "*"), ImplicitDeny},
		{"NotResource denies others", notThis, asked("s3:GetObject", "arn:aws:s3:::Other/x"), ExplicitDeny},
		{"NotResource leaves its own", notThis, asked("s3:GetObject", "arn:aws:s3:::HRBucket/Payroll/x"), Allowed},
		{"resources have cases", notThis, asked("s3:GetObject", "arn:aws:s3:::hrbucket/Payroll/x"), ExplicitDeny},
		{"actions have none", `{"Effect":"Allow","Action":"EC2:run*","Resource":"*"}`, asked("ec2:RunInstances", "*"), Allowed},
		{"in time", byDate, asked("service:Do", "*", "aws:CurrentTime", "2020-05-01T00:00:00Z"), Allowed},
		{"too late", byDate, asked("service:Do", "*", "aws:CurrentTime", "2020-07-01T00:00:00Z"), ImplicitDeny},
		{"no time", byDate, asked("service:Do", "*"), ImplicitDeny},
		{"in the range", byIP, asked("a:B", "*", "aws:SourceIp", "203.0.113.7", "aws:ViaAWSService", "false"), Allowed},
		{"mapped into the range", byIP, asked("a:B", "*", "aws:SourceIp", "::ffff:203.0.113.7", "aws:ViaAWSService", "false"), Allowed},
		{"outside of the range", byIP, asked("a:B", "*", "aws:SourceIp", "198.51.100.7", "aws:ViaAWSService", "false"), ExplicitDeny},
		{"by a service", byIP, asked("a:B", "*", "aws:SourceIp", "198.51.100.7", "aws:ViaAWSService", "true"), Allowed},
		{"the owner", owner, asked("ec2:StopInstances", "arn:aws:ec2:mallee-1:123456789012:instance/i-1", "aws:username", "John", "aws:ResourceTag/Owner", "John"), Allowed},
		{"not the owner", owner, asked("ec2:StopInstances", "arn:aws:ec2:mallee-1:123456789012:instance/i-1", "aws:username", "John", "aws:ResourceTag/Owner", "john"), ImplicitDeny},
		{"another resource", owner, asked("ec2:StopInstances", "arn:aws:ec2:mallee-1:123456789012:volume/vol-1", "aws:username", "John", "aws:ResourceTag/Owner", "John"), ImplicitDeny},
		{"IfExists, there", small, asked("ec2:RunInstances", "*", "ec2:InstanceType", "t2.micro"), Allowed},
		{"IfExists, another", small, asked("ec2:RunInstances", "*", "ec2:InstanceType", "m5.large"), ImplicitDeny},
		{"IfExists, not there", small, asked("ec2:RunInstances", "*"), Allowed},
		{"all of them", tagged, asked("ec2:CreateVolume", "*", "aws:TagKeys", "environment", "aws:TagKeys", "cost-center"), Allowed},
		{"not all", tagged, asked("ec2:CreateVolume", "*", "aws:TagKeys", "environment", "aws:TagKeys", "x"), ImplicitDeny},
		{"all of none", tagged, asked("ec2:CreateVolume", "*"), Allowed},
		{"any of them", some, asked("dynamodb:Get", "*", "dynamodb:Attributes", "ID", "dynamodb:Attributes", "UserName"), ExplicitDeny},
		{"any of others", some, asked("dynamodb:Get", "*", "dynamodb:Attributes", "UserName"), Allowed},
		{"any of none", some, asked("dynamodb:Get", "*"), Allowed},
		{"BoolIfExists, a lasting key", mfa, asked("ec2:X", "*"), ExplicitDeny},
		{"BoolIfExists, with a device", mfa, asked("ec2:X", "*", "aws:MultiFactorAuthPresent", "true"), Allowed},
		{"Null, a lasting key", noToken, asked("a:B", "*"), Allowed},
		{"Null, a session", noToken, asked("a:B", "*", "aws:TokenIssueTime", "2020-07-01T00:00:00Z"), ImplicitDeny},
		{"few keys", byNumber, asked("s3:ListBucket", "*", "s3:max-keys", "10"), Allowed},
		{"many keys", byNumber, asked("s3:ListBucket", "*", "s3:max-keys", "1000"), ImplicitDeny},
		{"no number", byNumber, asked("s3:ListBucket", "*", "s3:max-keys", "ten"), ImplicitDeny},
		{"a source", bySource, asked("sqs:SendMessage", "*", "aws:SourceArn", "arn:aws:sns:r:123456789012:my-topic"), Allowed},
		{"a star ends at a colon", bySource, asked("sqs:SendMessage", "*", "aws:SourceArn", "arn:aws:sns:r:x:123456789012:my-topic"), ImplicitDeny},
		{"bytes", byBytes, asked("a:B", "*", "a:key", "QmluYXJ5VmFsdWVJbkJhc2U2NA=="), Allowed},
		{"literals", literals, asked("s3:GetObject", "arn:aws:s3:::b/*x${y}"), Allowed},
		{"no wildcard", literals, asked("s3:GetObject", "arn:aws:s3:::b/yx${y}"), ImplicitDeny},
		{"nothing said", `{"Effect":"Allow","Action":"a:B","Resource":"*"}`, asked("a:C", "*"), ImplicitDeny},
	} {
		r := Rights{Identity: sources(parse(t, document(c.statements), Identity))}
		if got := r.Decide(c.q); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Each operator on a value that matches, one that doesn't, and none.
func TestOperators(t *testing.T) {
	for name, c := range map[string]struct {
		ours, same, other string
		absent            bool
	}{
		"StringEquals": {"a", "a", "A", false}, "StringNotEquals": {"a", "A", "a", true},
		"StringEqualsIgnoreCase": {"a", "A", "b", false}, "StringNotEqualsIgnoreCase": {"a", "b", "A", true},
		"StringLike": {"a?c*", "abcdef", "acb", false}, "StringNotLike": {"a*", "b", "ab", true},
		"NumericEquals": {"10", "10.0", "11", false}, "NumericNotEquals": {"10", "11", "1e1", true},
		"NumericLessThan": {"10", "9", "10", false}, "NumericLessThanEquals": {"10", "10", "10.5", false},
		"NumericGreaterThan": {"10", "11", "10", false}, "NumericGreaterThanEquals": {"10", "10", "-11", false},
		"DateEquals": {"2020-01-01", "2020-01-01T00:00:00Z", "2020-01-02", false}, "DateNotEquals": {"2020", "2021", "2020-01-01", true},
		"DateLessThan": {"2020-01-01T00:00:00Z", "1577836799", "1577836800", false}, "DateLessThanEquals": {"1577836800", "2020-01-01", "2020-01-02", false},
		"DateGreaterThan": {"2020-01-01", "2020-01-01T00:00:01Z", "2020-01-01", false}, "DateGreaterThanEquals": {"2020-01-01", "2020-01-01", "2019", false},
		"Bool": {"true", "TRUE", "false", false}, "BinaryEquals": {"YQ==", "YQ==", "Yg==", false},
		"IpAddress": {"2001:db8::/32", "2001:db8::1", "2001:db9::1", false}, "NotIpAddress": {"10.1.2.3", "10.1.2.4", "10.1.2.3", true},
		"ArnEquals": {"arn:aws:iam::*:user/*", "arn:aws:iam::1:user/a/b", "arn:aws:iam::1:role/a", false}, "ArnLike": {"arn:aws:sqs", "arn:aws:sqs:r:1:q", "arn:aws:sns:r:1:q", false},
		"ArnNotEquals": {"arn:aws:iam::1:user/a", "arn:aws:iam::1:user/b", "arn:aws:iam::1:user/a", true}, "ArnNotLike": {"arn:aws:iam::1:*", "arn:aws:iam::2:user/a", "arn:aws:iam::1:user/a", true},
		"Null": {"false", "anything", "", false},
	} {
		for suffix, absent := range map[string]bool{"": c.absent, "IfExists": true} {
			if name == "Null" && suffix != "" {
				continue
			}
			r := Rights{Identity: sources(parse(t, document(`{"Effect":"Allow","Action":"a:B","Resource":"*","Condition":{"`+name+suffix+`":{"a:Key":"`+c.ours+`"}}}`), Identity))}
			for _, try := range []struct {
				q    *Request
				want bool
			}{{asked("a:B", "*", "A:key", c.same), true}, {asked("a:B", "*", "a:key", c.other), name == "Null"}, {asked("a:B", "*"), absent}} {
				if got := r.Decide(try.q) == Allowed; got != try.want {
					t.Errorf("%s%s %q with %v: %t", name, suffix, c.ours, try.q.Context, got)
				}
			}
		}
	}
	if len(operators) != 27 {
		t.Errorf("%d operators; the table above has 27", len(operators))
	}
}

// Whose word counts: boundaries, sessions, resources and trust, in one account
// and between two.
func TestRights(t *testing.T) {
	all := parse(t, document(`{"Effect":"Allow","Action":"*","Resource":"*"}`), Identity)
	readOnly := parse(t, document(`{"Effect":"Allow","Action":"s3:Get*","Resource":"*"}`), Identity)
	noDelete := parse(t, document(`{"Effect":"Deny","Action":"s3:DeleteObject","Resource":"*"}`), Identity)
	closed := parse(t, document(`{"Effect":"Deny","Action":"s3:*","Resource":"*"}`), Account)
	grant := func(principal, action string) *Policy {
		return parse(t, document(`{"Effect":"Allow","Principal":`+principal+`,"Action":"`+action+`","Resource":"*"}`), Resource)
	}
	trust := func(principal string) *Policy {
		return parse(t, document(`{"Effect":"Allow","Principal":`+principal+`,"Action":"sts:AssumeRole"}`), Trust)
	}
	user := Principal{ARN: john, Account: johnsAccount}
	assumed := Principal{ARN: session, Role: demoRole, Account: johnsAccount}
	web := Principal{ARN: "web", Kind: "Federated", Name: "arn:aws:iam::123456789012:oidc-provider/issuer"}
	const foreign = "999999999999"
	for _, c := range []struct {
		name   string
		who    Principal
		action string
		owner  string
		rights Rights
		want   Verdict
	}{
		{"admin", user, "s3:X", "", Rights{Everything: true}, Allowed},
		{"admin whose account is closed", user, "s3:X", "", Rights{Everything: true, Guard: sources(closed)}, ExplicitDeny},
		{"within the boundary", user, "s3:GetObject", "", Rights{Identity: sources(all), Boundary: readOnly}, Allowed},
		{"outside of it", user, "s3:PutObject", "", Rights{Identity: sources(all), Boundary: readOnly}, ImplicitDeny},
		{"a boundary grants nothing", user, "s3:GetObject", "", Rights{Boundary: all}, ImplicitDeny},
		{"a boundary that denies", user, "s3:DeleteObject", "", Rights{Identity: sources(all), Boundary: noDelete}, ExplicitDeny},
		{"a session's policy bounds", assumed, "s3:PutObject", "", Rights{Identity: sources(all), Session: sources(readOnly), InSession: true}, ImplicitDeny},
		{"and lets", assumed, "s3:GetObject", "", Rights{Identity: sources(all), Session: sources(readOnly), InSession: true}, Allowed},
		{"and denies", assumed, "s3:DeleteObject", "", Rights{Identity: sources(all), Session: sources(all, noDelete), InSession: true}, ExplicitDeny},
		{"a bucket names the user", user, "s3:X", johnsAccount, Rights{Resource: grant(`{"AWS":"`+john+`"}`, "s3:*")}, Allowed},
		{"a bucket names everybody", user, "s3:X", johnsAccount, Rights{Resource: grant(`"*"`, "s3:*")}, Allowed},
		{"a bucket names the account", user, "s3:X", johnsAccount, Rights{Resource: grant(`{"AWS":"`+johnsAccount+`"}`, "s3:*")}, ImplicitDeny},
		{"and the user may", user, "s3:X", johnsAccount, Rights{Identity: sources(all), Resource: grant(`{"AWS":"`+johnsAccount+`"}`, "s3:*")}, Allowed},
		{"another account's bucket, not its word", user, "s3:X", foreign, Rights{Identity: sources(all)}, ImplicitDeny},
		{"another account's bucket, its word alone", user, "s3:X", foreign, Rights{Resource: grant(`{"AWS":"`+john+`"}`, "s3:*")}, ImplicitDeny},
		{"another account's bucket, both", user, "s3:X", foreign, Rights{Identity: sources(all), Resource: grant(`{"AWS":"arn:aws:iam::123456789012:root"}`, "s3:*")}, Allowed},
		{"a bucket names the role", assumed, "s3:X", johnsAccount, Rights{Resource: grant(`{"AWS":"`+demoRole+`"}`, "s3:*")}, Allowed},
		{"a bucket names the role of a bounded session", assumed, "s3:X", johnsAccount, Rights{Session: sources(readOnly), InSession: true, Resource: grant(`{"AWS":"`+demoRole+`"}`, "s3:*")}, ImplicitDeny},
		{"a bucket denies others", user, "s3:X", johnsAccount, Rights{Identity: sources(all), Resource: parse(t, document(`{"Effect":"Deny","NotPrincipal":{"AWS":"`+demoRole+`"},"Action":"s3:*","Resource":"*"}`), Resource)}, ExplicitDeny},
		{"a role trusts nobody", user, "sts:AssumeRole", johnsAccount, Rights{Identity: sources(all), Trusts: true, Resource: trust(`{"AWS":"` + demoRole + `"}`)}, ImplicitDeny},
		{"a role trusts the account", user, "sts:AssumeRole", johnsAccount, Rights{Identity: sources(all), Trusts: true, Resource: trust(`{"AWS":"` + johnsAccount + `"}`)}, Allowed},
		{"a role trusts the user", user, "sts:AssumeRole", johnsAccount, Rights{Trusts: true, Resource: trust(`{"AWS":"` + john + `"}`)}, Allowed},
		{"a role trusts a foreign user, who may not", user, "sts:AssumeRole", foreign, Rights{Trusts: true, Resource: trust(`{"AWS":"` + john + `"}`)}, ImplicitDeny},
		{"a role trusts a provider", web, "sts:AssumeRole", johnsAccount, Rights{Trusts: true, Resource: trust(`{"Federated":"arn:aws:iam::123456789012:oidc-provider/issuer"}`)}, Allowed},
		{"a role trusts another provider", web, "sts:AssumeRole", johnsAccount, Rights{Trusts: true, Resource: trust(`{"Federated":"arn:aws:iam::123456789012:oidc-provider/other"}`)}, ImplicitDeny},
	} {
		q := NewRequest(Request{Principal: c.who, Action: c.action, Resource: "arn:aws:s3:::b/k", Owner: c.owner})
		if got := c.rights.Decide(q); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestMalformed(t *testing.T) {
	const ok = `"Effect":"Allow","Action":"a:B","Resource":"*"`
	for _, c := range []struct {
		kind            Kind
		document, words string
	}{
		{Identity, ``, "Syntax errors in policy."},
		{Identity, `[]`, "must be a JSON object"},
		{Identity, document(`{`+ok+`}`) + "x", "Syntax errors"},
		{Identity, `{"Version":"2012-10-17"}`, "must have a Statement"},
		{Identity, `{"Version":"2012-10-18","Statement":{` + ok + `}}`, "valid version"},
		{Identity, `{"Statement":{` + ok + `},"Extra":1}`, `"Extra"`},
		{Identity, document(`{` + ok + `,"Effect":"Deny"}`), `"Effect" is there twice`},
		{Identity, document(`{"Sid":"a",`+ok+`}`, `{"Sid":"a",`+ok+`}`), "must be unique"},
		{Identity, document(`{"Sid":"a b",` + ok + `}`), "alpha-numeric"},
		{Identity, document(`{"Action":"a:B","Resource":"*"}`), "must have an Effect"},
		{Identity, document(`{"Effect":"allow","Action":"a:B","Resource":"*"}`), `"allow"`},
		{Identity, document(`{"Effect":"Allow","Resource":"*"}`), "must contain actions"},
		{Identity, document(`{"Effect":"Allow","Action":"a:B"}`), "must contain resources"},
		{Identity, document(`{"Effect":"Allow","Action":"RunInstances","Resource":"*"}`), "prefaced by a vendor"},
		{Identity, document(`{"Effect":"Allow","Action":"a*:B","Resource":"*"}`), "Vendor a* is not valid"},
		{Identity, document(`{"Effect":"Allow","Action":"a:B","NotAction":"a:C","Resource":"*"}`), "not both"},
		{Identity, document(`{"Effect":"Allow","Action":"a:B","Resource":"bucket"}`), "Resource bucket must be in ARN format"},
		{Identity, document(`{` + ok + `,"Principal":"*"}`), "should not specify a principal"},
		{Identity, document(`{` + ok + `,"Condition":{"Like":{"a:b":"c"}}}`), "Invalid Condition type : Like"},
		{Identity, document(`{` + ok + `,"Condition":{"Bool":{"b":"true"}}}`), "prefaced by a vendor"},
		{Identity, document(`{` + ok + `,"Condition":{"Bool":{"a:b":"yes"}}}`), `Invalid value "yes"`},
		{Identity, document(`{` + ok + `,"Condition":{"IpAddress":{"a:b":"10.0.0.0/33"}}}`), "Invalid value"},
		{Identity, document(`{` + ok + `,"Condition":{"NullIfExists":{"a:b":"true"}}}`), "Invalid Condition type"},
		{Identity, strings.Repeat(`{"Statement":`, 100), "nested too deep"},
		{Trust, document(`{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole","Resource":"*"}`), "prohibited field Resource"},
		{Trust, document(`{"Effect":"Allow","Action":"sts:AssumeRole"}`), "Missing required field Principal"},
		{Trust, document(`{"Effect":"Allow","Principal":{"AWS":"bob"},"Action":"sts:AssumeRole"}`), `Invalid principal in policy: "AWS":"bob"`},
		{Trust, document(`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:user/*"},"Action":"sts:AssumeRole"}`), "Invalid principal"},
		{Account, document(`{` + ok + `}`), "must be Deny or Limit"},
		{Resource, document(`{"Effect":"Limit","Principal":"*","Action":"a:B","Resource":"*"}`), `"Limit"`},
	} {
		_, err := Parse(c.document, c.kind)
		var m *MalformedError
		if !errors.As(err, &m) || !strings.Contains(m.Message, c.words) {
			t.Errorf("%s: %v, want %s", c.document, err, c.words)
		}
	}
}

func TestWithin(t *testing.T) {
	p := parse(t, document(`{"Effect":"Limit","Action":"ec2:RunInstances","Resource":"ec2:instance","Condition":{"NumericLessThanEquals":{"ec2:quota-vminstancenumber":"4","ec2:quota-cputotalsize":"8"}}}`), Account)
	for _, c := range []struct {
		action, key string
		value       int64
		want        bool
	}{
		{"ec2:RunInstances", "ec2:quota-vminstancenumber", 4, true}, {"ec2:RunInstances", "ec2:quota-vminstancenumber", 5, false},
		{"ec2:runinstances", "ec2:Quota-CPUTotalSize", 9, false}, {"ec2:RunInstances", "ec2:quota-cputotalsize", 8, true},
		{"ec2:CreateVolume", "ec2:quota-vminstancenumber", 5, true}, {"ec2:RunInstances", "ec2:quota-volumenumber", 5, true},
	} {
		if got := Within(sources(p), asked(c.action, "*"), c.key, c.value); got != c.want {
			t.Errorf("%s %s %d: %t", c.action, c.key, c.value, got)
		}
	}
}
