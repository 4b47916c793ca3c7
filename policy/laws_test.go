package policy

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Few words, so that statements and requests meet.
var (
	someActions   = rapid.SampledFrom([]string{"*", "s3:*", "s3:Get*", "s3:GetObject", "ec2:Run?nstances", "ec2:*", "iam:CreateUser"})
	someResources = rapid.SampledFrom([]string{"*", "arn:aws:s3:::b/*", "arn:aws:s3:::b/${aws:username}/*", "arn:aws:ec2:*:*:instance/*"})
	someTests     = rapid.SampledFrom([]string{
		"", `"StringEquals":{"aws:username":"John"}`, `"StringNotLike":{"aws:username":"J*"}`, `"Bool":{"aws:SecureTransport":"true"}`,
		`"ForAllValues:StringEquals":{"aws:TagKeys":["a","b"]}`, `"Null":{"aws:TagKeys":"true"}`, `"NumericLessThanIfExists":{"s3:max-keys":"10"}`,
	})
)

func someStatement(t *rapid.T, effects ...string) string {
	action, resource := "Action", "Resource"
	if rapid.Bool().Draw(t, "not the action") {
		action = "NotAction"
	}
	if rapid.Bool().Draw(t, "not the resource") {
		resource = "NotResource"
	}
	return fmt.Sprintf(`{"Effect":%q,%q:%q,%q:%q,"Condition":{%s}}`, rapid.SampledFrom(effects).Draw(t, "effect"),
		action, someActions.Draw(t, "action"), resource, someResources.Draw(t, "resource"), someTests.Draw(t, "condition"))
}

func somePolicy(t *rapid.T, effects ...string) *Policy {
	statements := make([]string, rapid.IntRange(1, 4).Draw(t, "statements"))
	for i := range statements {
		statements[i] = someStatement(t, effects...)
	}
	p, err := Parse(document(strings.Join(statements, ",")), Identity)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func someRequest(t *rapid.T) *Request {
	c := Context{}
	for key, values := range map[string][]string{"aws:username": {"John", "Jane"}, "aws:securetransport": {"true", "false"}, "aws:tagkeys": {"a", "c"}, "s3:max-keys": {"5", "50"}} {
		if rapid.Bool().Draw(t, key) {
			c.Add(key, rapid.SampledFrom(values).Draw(t, "value"))
		}
	}
	return NewRequest(Request{
		Principal: Principal{ARN: john, Account: johnsAccount}, Context: c,
		Action:   rapid.SampledFrom([]string{"s3:GetObject", "s3:PutObject", "ec2:RunInstances", "iam:CreateUser"}).Draw(t, "asked action"),
		Resource: rapid.SampledFrom([]string{"*", "arn:aws:s3:::b/John/x", "arn:aws:s3:::c", "arn:aws:ec2:r:1:instance/i-1"}).Draw(t, "asked resource"),
	})
}

// What must hold whatever the policies are.
func TestLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := someRequest(t)
		own := sources(somePolicy(t, "Allow", "Deny"), somePolicy(t, "Allow", "Deny"))
		before := Rights{Identity: own}
		verdict := before.Decide(q)

		more := before
		more.Identity = append(sources(somePolicy(t, "Deny")), own...)
		if after := more.Decide(q); after == Allowed && verdict != Allowed || verdict == ExplicitDeny && after != ExplicitDeny {
			t.Fatalf("adding a deny made %v of %v", after, verdict)
		}
		more.Identity = append(sources(somePolicy(t, "Allow")), own...)
		if after := more.Decide(q); verdict == ExplicitDeny && after != ExplicitDeny || verdict == Allowed && after != Allowed {
			t.Fatalf("adding an allow made %v of %v", after, verdict)
		}
		more = before
		more.Boundary = somePolicy(t, "Allow", "Deny")
		if more.Decide(q) == Allowed && verdict != Allowed {
			t.Fatal("a boundary granted")
		}
		more = before
		more.Session, more.InSession = sources(somePolicy(t, "Allow", "Deny")), true
		if more.Decide(q) == Allowed && verdict != Allowed {
			t.Fatal("a session's policy granted")
		}
		turned := Rights{Identity: []Source{own[1], own[0]}}
		if after := turned.Decide(q); after != verdict {
			t.Fatalf("the order made %v of %v", after, verdict)
		}
		q.Owner = "999999999999"
		if before.Decide(q) == Allowed {
			t.Fatal("allowed on another account's without its word")
		}
	})
}

// A glob matches what the plain, slow meaning of it does.
func TestGlob(t *testing.T) {
	var slow func(p, s string) bool
	slow = func(p, s string) bool {
		switch {
		case p == "":
			return s == ""
		case p[0] == '*':
			return slow(p[1:], s) || s != "" && slow(p, s[1:])
		}
		return s != "" && (p[0] == '?' || p[0] == s[0]) && slow(p[1:], s[1:])
	}
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.StringMatching(`[ab*?]{0,8}`).Draw(t, "pattern")
		s := rapid.StringMatching(`[ab]{0,10}`).Draw(t, "text")
		compiled := compile(p, true, true)
		if got, want := compiled.match(s, nil), slow(p, s); got != want {
			t.Fatalf("%q %q: %t", p, s, got)
		}
	})
}

// A pattern made to be slow is not.
func TestGlobIsBounded(t *testing.T) {
	p := compile(strings.Repeat("a*", 2000)+"b", true, true)
	if p.match(strings.Repeat("a", 2000), nil) {
		t.Error("matched")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(document(`{"Effect":"Allow","Action":"a:B","Resource":"arn:aws:s3:::b/${aws:username,'x'}*","Condition":{"ForAllValues:StringLikeIfExists":{"a:b":["c"]}}}`))
	f.Add(`{"Statement":{"Effect":"Deny","Principal":{"AWS":["123456789012"]},"NotAction":"*","NotResource":"*"}}`)
	f.Fuzz(func(t *testing.T, document string) {
		for _, kind := range []Kind{Identity, Resource, Trust, Account} {
			p, err := Parse(document, kind)
			if err != nil {
				continue
			}
			r := Rights{Identity: sources(p), Resource: p}
			r.Decide(asked("s3:GetObject", "arn:aws:s3:::b/k", "aws:username", "x"))
		}
	})
}

// BenchmarkDecide is of a user with 20 policies of 3 statements, of which the
// last one allows.
func BenchmarkDecide(b *testing.B) {
	var own []Source
	for i := range 20 {
		own = append(own, sources(parse(b, document(
			fmt.Sprintf(`{"Effect":"Allow","Action":["s3:Get%d*","s3:List*"],"Resource":"arn:aws:s3:::b%d/${aws:username}/*","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}}`, i, i),
			fmt.Sprintf(`{"Effect":"Deny","Action":"ec2:*","Resource":"arn:aws:ec2:*:*:instance/i-%d*","Condition":{"StringLike":{"aws:ResourceTag/owner":"x*"}}}`, i),
			fmt.Sprintf(`{"Effect":"Allow","Action":"ec2:Run*","Resource":"arn:aws:ec2:*:*:*/i-%d","Condition":{"StringEquals":{"ec2:InstanceType":["m1.small"]}}}`, i),
		), Identity))...)
	}
	r := Rights{Identity: own}
	for b.Loop() {
		q := asked("ec2:RunInstances", "arn:aws:ec2:mallee-1:123456789012:instance/i-19", "aws:username", "John", "aws:SourceIp", "10.1.2.3", "ec2:InstanceType", "m1.small")
		if r.Decide(q) != Allowed {
			b.Fatal("not allowed")
		}
	}
}
