package iam

import (
	"context"
	"encoding/xml"
	"errors"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"mallee/cloud"
	"mallee/policy"
	"mallee/state"
	"mallee/wire"
)

// aCloud is an IAM on a state in memory, with an account beside the system's.
type aCloud struct {
	*IAM
	t      *testing.T
	system Principal
	admin  Principal // of the account anna
}

func newCloud(t *testing.T) *aCloud {
	t.Helper()
	m, dir, root := keyed(t)
	c := &aCloud{t: t}
	c.IAM, _ = open(t, options(t, m, dir))
	c.system, _, _ = c.Principal(root.AccessKey)
	c.admin = c.account("anna")
	return c
}

// account made by the system's administrator, and its admin's principal.
func (c *aCloud) account(name string) Principal {
	c.t.Helper()
	c.must(c.system, "CreateAccount", "AccountName", name)
	keys := c.must(c.system, "CreateAccessKey", "DelegateAccount", name, "UserName", AdminUser)
	return c.key(keys)
}

// key that a reply has made, as the principal that it signs for.
func (c *aCloud) key(reply string) Principal {
	c.t.Helper()
	p, secret, token, ok := c.Holder(text(reply, "AccessKeyId"))
	if !ok || secret != text(reply, "SecretAccessKey") || token != text(reply, "SessionToken") {
		c.t.Fatalf("the key of %s is %t", reply, ok)
	}
	return p
}

// text of the first element of that name.
func text(reply, name string) string {
	_, rest, _ := strings.Cut(reply, "<"+name+">")
	value, _, _ := strings.Cut(rest, "</"+name+">")
	var out struct {
		S string `xml:",chardata"`
	}
	_ = xml.Unmarshal([]byte("<x>"+value+"</x>"), &out)
	return out.S
}

// send an action, whose parameters are NAME, VALUE, …, and return status and body.
func (c *aCloud) send(p Principal, action string, params ...string) (int, string) {
	c.t.Helper()
	form := wire.Form{"Action": action}
	for i := 0; i < len(params); i += 2 {
		form[params[i]] = params[i+1]
	}
	service := ServiceIAM
	if actions[ServiceSTS+":"+action] != nil {
		service = ServiceSTS
	}
	w := httptest.NewRecorder()
	c.Handle(w, httptest.NewRequest("POST", "/", nil), service, form, p, "req")
	return w.Code, w.Body.String()
}

func (c *aCloud) must(p Principal, action string, params ...string) string {
	c.t.Helper()
	status, body := c.send(p, action, params...)
	if status != 200 {
		c.t.Fatalf("%s %v: %d %s", action, params, status, body)
	}
	return body
}

// refused with that code, in words that name what is wrong.
func (c *aCloud) refused(p Principal, code, words, action string, params ...string) {
	c.t.Helper()
	status, body := c.send(p, action, params...)
	if status < 400 || status >= 500 || text(body, "Code") != code || !strings.Contains(body, words) {
		c.t.Errorf("%s %v: %d %s, want %s with %q", action, params, status, body, code, words)
	}
}

// user of anna's with a key.
func (c *aCloud) user(name string) Principal {
	c.t.Helper()
	c.must(c.admin, "CreateUser", "UserName", name)
	return c.key(c.must(c.admin, "CreateAccessKey", "UserName", name))
}

func allow(actions, resource string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[` + actions + `],"Resource":"` + resource + `"}]}`
}

func TestUsers(t *testing.T) {
	c := newCloud(t)
	reply := c.must(c.admin, "CreateUser", "UserName", "Bob", "Path", "/division_abc/", "Tags.member.1.Key", "team", "Tags.member.1.Value", "red")
	if id := text(reply, "UserId"); len(id) != 21 || !strings.HasPrefix(id, "AIDA") || text(reply, "Arn") != "arn:aws:iam::"+string(c.admin.Account)+":user/division_abc/Bob" {
		t.Error(reply)
	}
	c.refused(c.admin, "EntityAlreadyExists", "bob", "CreateUser", "UserName", "bob")
	c.refused(c.admin, "ValidationError", "b b", "CreateUser", "UserName", "b b")
	c.refused(c.admin, "ValidationError", "UserName", "CreateUser")
	c.refused(c.admin, "ValidationError", "Path", "CreateUser", "UserName", "x", "Path", "nowhere")
	c.refused(c.admin, "UnknownParameter", "Colour", "CreateUser", "UserName", "x", "Colour", "red")
	c.refused(c.admin, "NoSuchEntity", "carl", "GetUser", "UserName", "carl")
	c.refused(c.admin, "NoSuchEntity", "carl", "DeleteUser", "UserName", "carl")
	c.refused(c.system, "NoSuchEntity", "Bob", "GetUser", "UserName", "Bob")
	if got := c.must(c.system, "GetUser", "UserName", "BOB", "DelegateAccount", "anna"); text(got, "Key") != "team" {
		t.Error(got)
	}
	c.refused(c.admin, "AccessDenied", "GetUser", "GetUser", "DelegateAccount", "eucalyptus")
	if got := c.must(c.admin, "ListUsers", "PathPrefix", "/division"); strings.Count(got, "<UserName>") != 1 {
		t.Error(got)
	}
	bob := c.key(c.must(c.admin, "CreateAccessKey", "UserName", "Bob"))
	c.refused(c.admin, "DeleteConflict", "access keys", "DeleteUser", "UserName", "Bob")
	c.must(c.admin, "UpdateUser", "UserName", "Bob", "NewUserName", "Robert", "NewPath", "/")
	if p, _, _, ok := c.Holder(bob.AccessKey); !ok || p.User != "Robert" || p.UserID != bob.UserID {
		t.Errorf("after a new name: %+v", p)
	}
	c.must(c.admin, "DeleteAccessKey", "UserName", "Robert", "AccessKeyId", bob.AccessKey)
	if _, _, _, ok := c.Holder(bob.AccessKey); ok {
		t.Error("a deleted key counts")
	}
	c.must(c.admin, "DeleteUser", "UserName", "Robert")
	c.must(c.admin, "CreateUser", "UserName", "bob")
	c.refused(c.admin, "DeleteConflict", "admin", "DeleteUser", "UserName", "admin")
	c.refused(c.admin, "InvalidInput", "admin", "UpdateUser", "UserName", "admin", "NewUserName", "boss")
}

func TestPages(t *testing.T) {
	c := newCloud(t)
	for _, name := range []string{"d", "b", "a", "c"} {
		c.must(c.admin, "CreateGroup", "GroupName", name)
	}
	var got []string
	marker := ""
	for {
		params := []string{"MaxItems", "3"}
		if marker != "" {
			params = append(params, "Marker", marker)
		}
		reply := c.must(c.admin, "ListGroups", params...)
		for _, part := range strings.Split(reply, "<GroupName>")[1:] {
			got = append(got, part[:1])
		}
		if text(reply, "IsTruncated") != "true" {
			break
		}
		marker = text(reply, "Marker")
	}
	if strings.Join(got, "") != "abcd" {
		t.Errorf("listed %v", got)
	}
	c.refused(c.admin, "ValidationError", "Marker", "ListGroups", "Marker", "%")
	c.refused(c.admin, "ValidationError", "MaxItems", "ListGroups", "MaxItems", "1001")
}

// A key is rotated; a disabled one stops at once.
func TestAccessKeys(t *testing.T) {
	c := newCloud(t)
	bob := c.user("bob")
	c.must(c.admin, "CreateAccessKey", "UserName", "bob")
	c.refused(c.admin, "LimitExceeded", "AccessKeysPerUser: 2", "CreateAccessKey", "UserName", "bob")
	c.must(c.admin, "UpdateAccessKey", "UserName", "bob", "AccessKeyId", bob.AccessKey, "Status", "Inactive")
	if _, _, _, ok := c.Holder(bob.AccessKey); ok {
		t.Error("a disabled key counts")
	}
	c.must(c.admin, "UpdateAccessKey", "UserName", "bob", "AccessKeyId", bob.AccessKey, "Status", "Active")
	if got := c.must(c.admin, "GetAccessKeyLastUsed", "AccessKeyId", bob.AccessKey); text(got, "ServiceName") != "N/A" {
		t.Error(got)
	}
	c.Used(bob, "ec2", Region)
	if got := c.must(c.admin, "GetAccessKeyLastUsed", "AccessKeyId", bob.AccessKey); text(got, "ServiceName") != "ec2" || text(got, "LastUsedDate") == "" {
		t.Error(got)
	}
	c.refused(c.admin, "NoSuchEntity", "AKIANONE", "DeleteAccessKey", "UserName", "bob", "AccessKeyId", "AKIANONE")
	c.refused(c.admin, "NoSuchEntity", c.system.AccessKey, "UpdateAccessKey", "AccessKeyId", c.system.AccessKey, "Status", "Inactive")
	for k := range state.AccessKeys.All(c.Store.View()) {
		if k.Secret != "" || len(k.Sealed) == 0 {
			t.Errorf("the secret of %s is in the state", k.ID)
		}
	}
}

// What somebody may is what the policies say, at once.
func TestAuthorize(t *testing.T) {
	c := newCloud(t)
	bob := c.user("bob")
	may := func(want bool, action, resource string, more ...policy.Context) {
		t.Helper()
		if err := c.Authorize(bob, action, resource, more...); (err == nil) != want || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("%s on %s: %v", action, resource, err)
		}
	}
	const instance = "arn:aws:ec2:mallee-1:1:instance/i-1"
	may(false, "ec2:DescribeInstances", "*")
	c.refused(c.admin, "MalformedPolicyDocument", "Syntax errors", "PutUserPolicy", "UserName", "bob", "PolicyName", "p", "PolicyDocument", "{")
	c.must(c.admin, "PutUserPolicy", "UserName", "bob", "PolicyName", "p", "PolicyDocument", allow(`"ec2:Describe*"`, "*"))
	may(true, "ec2:DescribeInstances", "*")
	may(false, "ec2:RunInstances", instance)

	c.must(c.admin, "CreateGroup", "GroupName", "ops")
	c.must(c.admin, "AddUserToGroup", "GroupName", "ops", "UserName", "bob")
	arn := text(c.must(c.admin, "CreatePolicy", "PolicyName", "run", "PolicyDocument", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ec2:*","Resource":"*","Condition":{"StringEquals":{"ec2:ResourceTag/owner":"${aws:username}"},"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}}}`), "Arn")
	c.must(c.admin, "AttachGroupPolicy", "GroupName", "ops", "PolicyArn", arn)
	owned := policy.Context{}
	owned.Set("ec2:ResourceTag/owner", "bob")
	may(false, "ec2:StopInstances", instance, owned)
	bob.Around = &Around{Source: netip.MustParseAddr("10.2.3.4")}
	may(true, "ec2:StopInstances", instance, owned)
	may(false, "ec2:StopInstances", instance)
	c.must(c.admin, "CreatePolicyVersion", "PolicyArn", arn, "PolicyDocument", allow(`"ec2:StopInstances"`, "*"), "SetAsDefault", "true")
	may(true, "ec2:StopInstances", instance)
	c.must(c.admin, "SetDefaultPolicyVersion", "PolicyArn", arn, "VersionId", "v1")
	may(false, "ec2:StopInstances", instance)

	bound := text(c.must(c.admin, "CreatePolicy", "PolicyName", "bound", "PolicyDocument", allow(`"s3:*"`, "*")), "Arn")
	c.must(c.admin, "PutUserPermissionsBoundary", "UserName", "bob", "PermissionsBoundary", bound)
	may(false, "ec2:DescribeInstances", "*")
	c.refused(c.admin, "DeleteConflict", "attached", "DeletePolicy", "PolicyArn", bound)
	c.must(c.admin, "DeleteUserPermissionsBoundary", "UserName", "bob")
	may(true, "ec2:DescribeInstances", "*")

	c.must(c.system, "PutAccountPolicy", "AccountName", "anna", "PolicyName", "closed", "PolicyDocument", `{"Statement":{"Effect":"Deny","Action":"ec2:Describe*","Resource":"*"}}`)
	may(false, "ec2:DescribeInstances", "*")
	if c.Authorize(c.admin, "ec2:DescribeInstances", "*") == nil || c.Authorize(c.admin, "ec2:RunInstances", "*") != nil {
		t.Error("the account's policy does not bind its admin")
	}
	c.must(c.system, "DeleteAccountPolicy", "AccountName", "anna", "PolicyName", "closed")
	may(true, "ec2:DescribeInstances", "*")
	c.must(c.admin, "RemoveUserFromGroup", "GroupName", "ops", "UserName", "bob")
	may(false, "ec2:StopInstances", instance, owned)
}

// A user of few rights can't get more by IAM itself.
func TestNoEscalation(t *testing.T) {
	c := newCloud(t)
	bob := c.user("bob")
	self := "arn:aws:iam::" + string(c.admin.Account) + ":user/${aws:username}"
	c.must(c.admin, "PutUserPolicy", "UserName", "bob", "PolicyName", "self", "PolicyDocument", allow(`"iam:*AccessKey*","iam:GetUser"`, self))
	c.must(bob, "GetUser")
	c.must(bob, "ListAccessKeys")
	c.must(bob, "CreateAccessKey", "UserName", "bob")
	for _, try := range [][]string{
		{"CreateAccessKey", "UserName", "admin"}, {"GetUser", "UserName", "admin"}, {"CreateUser", "UserName", "eve"},
		{"PutUserPolicy", "UserName", "bob", "PolicyName", "x", "PolicyDocument", allow(`"*"`, "*")},
		{"AttachUserPolicy", "UserName", "bob", "PolicyArn", builtIn + "AdministratorAccess"}, {"ListUsers"}, {"CreateAccount", "AccountName", "mine"},
		{"PutAccountPolicy", "AccountName", "anna", "PolicyName", "x", "PolicyDocument", "{}"},
		{"SimulatePrincipalPolicy", "PolicySourceArn", c.admin.ARN(), "ActionNames.member.1", "ec2:X"},
	} {
		c.refused(bob, "AccessDenied", "user/bob", try[0], try[1:]...)
	}
	c.refused(c.admin, "AccessDenied", "user/admin", "CreateAccount", "AccountName", "mine")
	c.refused(Principal{}, "MissingAuthenticationToken", "GetUser", "GetUser")
}

func TestManagedPolicies(t *testing.T) {
	c := newCloud(t)
	c.must(c.admin, "CreateUser", "UserName", "bob")
	arn := text(c.must(c.admin, "CreatePolicy", "PolicyName", "p", "Path", "/x/", "PolicyDocument", allow(`"ec2:*"`, "*")), "Arn")
	if arn != "arn:aws:iam::"+string(c.admin.Account)+":policy/x/p" {
		t.Error(arn)
	}
	for range maxVersions - 1 {
		c.must(c.admin, "CreatePolicyVersion", "PolicyArn", arn, "PolicyDocument", allow(`"s3:*"`, "*"))
	}
	c.refused(c.admin, "LimitExceeded", "5 versions", "CreatePolicyVersion", "PolicyArn", arn, "PolicyDocument", allow(`"s3:*"`, "*"))
	c.refused(c.admin, "DeleteConflict", "default version", "DeletePolicyVersion", "PolicyArn", arn, "VersionId", "v1")
	c.must(c.admin, "DeletePolicyVersion", "PolicyArn", arn, "VersionId", "v5")
	if got := c.must(c.admin, "CreatePolicyVersion", "PolicyArn", arn, "PolicyDocument", allow(`"s3:*"`, "*")); text(got, "VersionId") != "v6" {
		t.Errorf("a version's number is given again: %s", got)
	}
	c.refused(c.admin, "NoSuchEntity", "v9", "GetPolicyVersion", "PolicyArn", arn, "VersionId", "v9")
	c.must(c.admin, "AttachUserPolicy", "UserName", "bob", "PolicyArn", arn)
	c.must(c.admin, "AttachUserPolicy", "UserName", "bob", "PolicyArn", builtIn+"ReadOnlyAccess")
	if got := c.must(c.admin, "GetPolicy", "PolicyArn", arn); text(got, "AttachmentCount") != "1" {
		t.Error(got)
	}
	if got := c.must(c.admin, "ListEntitiesForPolicy", "PolicyArn", arn); text(got, "UserName") != "bob" {
		t.Error(got)
	}
	if got := c.must(c.admin, "ListAttachedUserPolicies", "UserName", "bob"); strings.Count(got, "<PolicyArn>") != 2 {
		t.Error(got)
	}
	if got := c.must(c.admin, "ListPolicies", "Scope", "Local"); strings.Count(got, "<PolicyName>") != 1 {
		t.Error(got)
	}
	c.refused(c.admin, "AccessDenied", "ReadOnlyAccess", "DeletePolicy", "PolicyArn", builtIn+"ReadOnlyAccess")
	c.refused(c.admin, "NoSuchEntity", "nothing", "GetPolicy", "PolicyArn", "arn:aws:iam::"+string(c.admin.Account)+":policy/nothing")
	c.refused(c.system, "NoSuchEntity", "policy/x/p", "GetPolicy", "PolicyArn", arn)
	c.refused(c.admin, "ValidationError", "p!", "GetPolicy", "PolicyArn", "p!")
	c.refused(c.admin, "DeleteConflict", "detach", "DeleteUser", "UserName", "bob")
	c.refused(c.admin, "LimitExceeded", "2048", "PutUserPolicy", "UserName", "bob", "PolicyName", "big", "PolicyDocument", allow(`"s3:`+strings.Repeat("x", 2048)+`"`, "*"))
	c.must(c.admin, "DetachUserPolicy", "UserName", "bob", "PolicyArn", arn)
	c.refused(c.admin, "NoSuchEntity", "x/p", "DetachUserPolicy", "UserName", "bob", "PolicyArn", arn)
	for _, name := range cloudPolicies {
		if _, err := policy.Parse(name.Versions[0].Document, policy.Identity); err != nil {
			t.Errorf("%s: %v", name.Name, err)
		}
	}
}

// A limit on an account holds in the transaction that would exceed it.
func TestQuota(t *testing.T) {
	c := newCloud(t)
	c.must(c.system, "PutAccountPolicy", "AccountName", "anna", "PolicyName", "few", "PolicyDocument",
		`{"Statement":{"Effect":"Limit","Action":"iam:CreateUser","Resource":"*","Condition":{"NumericLessThanEquals":{"iam:quota-usernumber":"3"}}}}`)
	c.must(c.admin, "CreateUser", "UserName", "a")
	c.must(c.admin, "CreateUser", "UserName", "b")
	c.refused(c.admin, "LimitExceeded", "iam:quota-usernumber", "CreateUser", "UserName", "c")
	c.refused(c.admin, "NoSuchEntity", "c", "GetUser", "UserName", "c")
	var over *QuotaError
	if err := c.Within(c.Store.View(), c.admin, "iam:CreateUser", "iam:quota-usernumber", 4); !errors.As(err, &over) {
		t.Errorf("4 users: %v", err)
	}
	if err := c.Within(c.Store.View(), c.system, "iam:CreateUser", "iam:quota-usernumber", 4); err != nil {
		t.Errorf("the system's administrator: %v", err)
	}
}

func TestAccounts(t *testing.T) {
	c := newCloud(t)
	c.refused(c.system, "EntityAlreadyExists", "anna", "CreateAccount", "AccountName", "anna")
	c.refused(c.system, "ValidationError", "A!", "CreateAccount", "AccountName", "A!")
	if got := c.must(c.system, "ListAccounts"); strings.Count(got, "<AccountId>") != 2 {
		t.Error(got)
	}
	c.must(c.admin, "CreateAccountAlias", "AccountAlias", "annas")
	if got := c.must(c.admin, "ListAccountAliases"); text(got, "member") != "annas" {
		t.Error(got)
	}
	c.must(c.system, "CreateAccount", "AccountName", "anna")
	c.user("bob")
	c.refused(c.system, "DeleteConflict", "Recursive", "DeleteAccount", "AccountName", "annas")
	if err := c.Store.Update(context.Background(), func(tx *state.Tx) error {
		state.KeyPairs.Put(tx, cloud.KeyPair{ID: "key-1", Account: c.admin.Account, Name: "k"})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	c.refused(c.system, "DeleteConflict", "key pairs", "DeleteAccount", "AccountName", "annas", "Recursive", "true")
	if err := c.Store.Update(context.Background(), func(tx *state.Tx) error { state.KeyPairs.Delete(tx, "key-1"); return nil }); err != nil {
		t.Fatal(err)
	}
	c.must(c.system, "DeleteAccount", "AccountName", "annas", "Recursive", "true")
	if _, _, _, ok := c.Holder(c.admin.AccessKey); ok {
		t.Error("a deleted account's key counts")
	}
	c.refused(c.system, "DeleteConflict", "eucalyptus", "DeleteAccount", "AccountName", "eucalyptus", "Recursive", "true")
}
