package iam

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func trust(principal, action, condition string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":` + principal + `,"Action":"` + action + `","Condition":{` + condition + `}}]}`
}

// A role of one account, taken on by a user of another, whom both must let.
func TestAssumeRole(t *testing.T) {
	c := newCloud(t)
	berts := c.account("bert")
	bob := c.user("bob")
	arn := text(c.must(berts, "CreateRole", "RoleName", "reader", "AssumeRolePolicyDocument",
		trust(`{"AWS":"`+string(c.admin.Account)+`"}`, "sts:AssumeRole", `"StringEquals":{"sts:ExternalId":"x-1"}`)), "Arn")
	c.must(berts, "PutRolePolicy", "RoleName", "reader", "PolicyName", "p", "PolicyDocument", allow(`"ec2:Describe*","s3:*"`, "*"))
	assume := []string{"RoleArn", arn, "RoleSessionName", "session-1", "ExternalId", "x-1"}
	c.refused(bob, "AccessDenied", "sts:AssumeRole", "AssumeRole", assume...)
	c.must(c.admin, "PutUserPolicy", "UserName", "bob", "PolicyName", "p", "PolicyDocument", allow(`"sts:AssumeRole"`, arn))
	c.refused(bob, "AccessDenied", "sts:AssumeRole", "AssumeRole", assume[:4]...)
	c.refused(bob, "ValidationError", "MaxSessionDuration", "AssumeRole", append(assume, "DurationSeconds", "7200")...)
	c.refused(bob, "ValidationError", "RoleArn", "AssumeRole", "RoleArn", "reader", "RoleSessionName", "session-1")
	c.refused(bob, "AccessDenied", "nobody", "AssumeRole", "RoleArn", "arn:aws:iam::"+string(berts.Account)+":role/nobody", "RoleSessionName", "session-1")
	c.refused(bob, "MalformedPolicyDocument", "Syntax", "AssumeRole", append(assume, "Policy", "{")...)

	reply := c.must(bob, "AssumeRole", append(assume, "Policy", allow(`"ec2:*"`, "*"))...)
	p := c.key(reply)
	if got := c.must(p, "GetCallerIdentity"); text(got, "Arn") != "arn:aws:sts::"+string(berts.Account)+":assumed-role/reader/session-1" || !strings.HasPrefix(text(got, "UserId"), "AROA") {
		t.Error(got)
	}
	for action, want := range map[string]bool{"ec2:DescribeInstances": true, "ec2:RunInstances": false, "s3:GetObject": false} {
		if err := c.Authorize(p, action, "*"); (err == nil) != want {
			t.Errorf("%s in the session: %v", action, err)
		}
	}
	c.refused(p, "AccessDenied", "session", "GetSessionToken")
	c.must(berts, "DeleteRolePolicy", "RoleName", "reader", "PolicyName", "p")
	if p, _, _, _ = c.Holder(p.AccessKey); c.Authorize(p, "ec2:DescribeInstances", "*") == nil {
		t.Error("the session keeps what its role has lost")
	}
	c.must(berts, "DeleteRole", "RoleName", "reader")
	if _, _, _, ok := c.Holder(p.AccessKey); ok {
		t.Error("the session of a role that is gone counts")
	}
}

// Sessions end with their time, and with the key that they were made with.
func TestSessionTokens(t *testing.T) {
	c := newCloud(t)
	bob := c.user("bob")
	now := start()
	c.Now = func() time.Time { return now }
	one := c.key(c.must(bob, "GetSessionToken", "DurationSeconds", "900"))
	if one.ARN() != bob.ARN() {
		t.Errorf("a session's user is %s", one.ARN())
	}
	c.refused(bob, "ValidationError", "DurationSeconds", "GetSessionToken", "DurationSeconds", "899")
	now = now.Add(15 * time.Minute)
	if _, _, _, ok := c.Holder(one.AccessKey); ok {
		t.Error("an expired session counts")
	}
	two := c.key(c.must(bob, "GetSessionToken"))
	_, _, first, _ := c.Holder(two.AccessKey)
	if third := c.key(c.must(bob, "GetSessionToken")); third.AccessKey == two.AccessKey || c.vault.token(third.AccessKey) == first {
		t.Error("two sessions have one token")
	}
	c.must(c.admin, "UpdateAccessKey", "UserName", "bob", "AccessKeyId", bob.AccessKey, "Status", "Inactive")
	if _, _, _, ok := c.Holder(two.AccessKey); ok {
		t.Error("a session of a disabled key counts")
	}
}

func TestFederation(t *testing.T) {
	c := newCloud(t)
	p := c.key(c.must(c.admin, "GetFederationToken", "Name", "guest", "Policy", allow(`"ec2:Describe*"`, "*")))
	if p.ARN() != "arn:aws:sts::"+string(c.admin.Account)+":federated-user/guest" || p.System {
		t.Errorf("%s, %+v", p.ARN(), p)
	}
	if c.Authorize(p, "ec2:DescribeInstances", "*") != nil || c.Authorize(p, "ec2:RunInstances", "*") == nil {
		t.Error("the session's policy doesn't bound it")
	}
	bare := c.key(c.must(c.system, "GetFederationToken", "Name", "guest"))
	if c.Authorize(bare, "ec2:DescribeInstances", "*") == nil {
		t.Error("without a policy it may something")
	}
	c.refused(bare, "AccessDenied", "CreateAccount", "CreateAccount", "AccountName", "mine")
}

// issuer is an OpenID Connect provider on this machine.
type issuer struct {
	*httptest.Server
	key *rsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	var err error
	if i.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	tell := func(path string, v func() any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v()) })
	}
	tell("/.well-known/openid-configuration", func() any { return map[string]string{"issuer": i.URL, "jwks_uri": i.URL + "/keys"} })
	tell("/keys", func() any {
		return map[string]any{"keys": []any{map[string]string{
			"kid": "k1", "kty": "RSA", "use": "sig", "n": base64.RawURLEncoding.EncodeToString(i.key.N.Bytes()),
			"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(i.key.E)).Bytes()),
		}}}
	})
	i.Server = httptest.NewTLSServer(mux)
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) token(t *testing.T, key *rsa.PrivateKey, changes ...string) string {
	t.Helper()
	claims := jwt.MapClaims{"iss": i.URL, "aud": "client-1", "sub": "alice", "exp": start().Add(time.Hour).Unix(), "iat": start().Unix()}
	for n := 0; n < len(changes); n += 2 {
		claims[changes[n]] = changes[n+1]
		if changes[n] == "exp" {
			claims["exp"] = start().Add(-time.Hour).Unix()
		}
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["kid"] = "k1"
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestWebIdentity(t *testing.T) {
	c := newCloud(t)
	i := newIssuer(t)
	c.Issuers = i.Client()
	arn := text(c.must(c.admin, "CreateOpenIDConnectProvider", "Url", i.URL, "ClientIDList.member.1", "client-1", "ThumbprintList.member.1", strings.Repeat("a", 40)), "OpenIDConnectProviderArn")
	host := strings.TrimPrefix(i.URL, "https://")
	role := text(c.must(c.admin, "CreateRole", "RoleName", "web", "AssumeRolePolicyDocument",
		trust(`{"Federated":"`+arn+`"}`, "sts:AssumeRoleWithWebIdentity", `"StringEquals":{"`+host+`:sub":"alice","`+host+`:aud":"client-1"}`)), "Arn")
	ask := func(token string) []string {
		return []string{"RoleArn", role, "RoleSessionName", "session-1", "WebIdentityToken", token}
	}
	reply := c.must(Principal{}, "AssumeRoleWithWebIdentity", ask(i.token(t, i.key))...)
	if p := c.key(reply); p.Role == nil || p.Account != c.admin.Account || text(reply, "SubjectFromWebIdentityToken") != "alice" {
		t.Error(reply)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"iss": i.URL, "aud": "client-1", "sub": "alice", "exp": start().Add(time.Hour).Unix()}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct{ code, words, token string }{
		{"InvalidIdentityToken", "signature", i.token(t, other)},
		{"InvalidIdentityToken", "signing method", unsigned},
		{"InvalidIdentityToken", "audience", i.token(t, i.key, "aud", "client-2")},
		{"InvalidIdentityToken", "no OpenIDConnect provider", i.token(t, i.key, "iss", "https://elsewhere.example")},
		{"ExpiredTokenException", "expired", i.token(t, i.key, "exp", "")},
		{"AccessDenied", "AssumeRoleWithWebIdentity", i.token(t, i.key, "sub", "mallory")},
		{"InvalidIdentityToken", "WebIdentityToken", "nonsense"},
	} {
		c.refused(Principal{}, bad.code, bad.words, "AssumeRoleWithWebIdentity", ask(bad.token)...)
	}
	c.Issuers = nil
	c.refused(Principal{}, "IDPCommunicationError", "asks none", "AssumeRoleWithWebIdentity", ask(i.token(t, i.key))...)
}

func TestSimulation(t *testing.T) {
	c := newCloud(t)
	bob := c.user("bob")
	c.must(c.admin, "PutUserPolicy", "UserName", "bob", "PolicyName", "p", "PolicyDocument",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ec2:*","Resource":"*"},{"Effect":"Deny","Action":"ec2:TerminateInstances","Resource":"*","Condition":{"Bool":{"my:key":"true"}}}]}`)
	for _, try := range []struct {
		action string
		more   []string
		want   string
	}{
		{"ec2:RunInstances", nil, "allowed"}, {"s3:GetObject", nil, "implicitDeny"}, {"ec2:TerminateInstances", nil, "allowed"},
		{"ec2:TerminateInstances", []string{"ContextEntries.member.1.ContextKeyName", "my:key", "ContextEntries.member.1.ContextKeyValues.member.1", "true", "ContextEntries.member.1.ContextKeyType", "boolean"}, "explicitDeny"},
		{"s3:GetObject", []string{"PolicyInputList.member.1", allow(`"s3:*"`, "*")}, "allowed"},
	} {
		got := c.must(c.admin, "SimulatePrincipalPolicy", append([]string{"PolicySourceArn", bob.ARN(), "ActionNames.member.1", try.action}, try.more...)...)
		if text(got, "EvalDecision") != try.want {
			t.Errorf("%s %v: %s", try.action, try.more, got)
		}
	}
	got := c.must(c.admin, "SimulateCustomPolicy", "PolicyInputList.member.1", allow(`"s3:Get*"`, "arn:aws:s3:::b/*"), "ActionNames.member.1", "s3:GetObject", "ResourceArns.member.1", "arn:aws:s3:::b/k")
	if text(got, "EvalDecision") != "allowed" || text(got, "SourcePolicyId") != "PolicyInputList.1" {
		t.Error(got)
	}
	c.refused(c.admin, "InvalidInput", "PolicyInputList", "SimulateCustomPolicy", "PolicyInputList.member.1", "{", "ActionNames.member.1", "a:B")
	c.refused(c.admin, "NoSuchEntity", "user/carl", "SimulatePrincipalPolicy", "PolicySourceArn", "arn:aws:iam::"+string(c.admin.Account)+":user/carl", "ActionNames.member.1", "a:B")
}

func TestDecodeAuthorizationMessage(t *testing.T) {
	c := newCloud(t)
	bob := c.user("bob")
	encoded := c.EncodeDenial(&DeniedError{Principal: bob, Action: "ec2:RunInstances", Resource: "*", Explicit: true})
	if got := c.must(c.admin, "DecodeAuthorizationMessage", "EncodedMessage", encoded); !strings.Contains(got, "ec2:RunInstances") || !strings.Contains(got, "explicitDeny") {
		t.Error(got)
	}
	c.refused(bob, "AccessDenied", "DecodeAuthorizationMessage", "DecodeAuthorizationMessage", "EncodedMessage", encoded)
	c.refused(c.account("bert"), "InvalidAuthorizationMessageException", "EncodedMessage", "DecodeAuthorizationMessage", "EncodedMessage", encoded)
	c.refused(c.admin, "InvalidAuthorizationMessageException", "EncodedMessage", "DecodeAuthorizationMessage", "EncodedMessage", "x"+encoded[1:])
}

// Passwords, certificates and profiles: each is made, told, changed and taken away.
func TestCredentialsOfOtherKinds(t *testing.T) {
	c := newCloud(t)
	c.must(c.admin, "CreateUser", "UserName", "bob")
	c.must(c.admin, "CreateLoginProfile", "UserName", "bob", "Password", "correct horse")
	c.refused(c.admin, "EntityAlreadyExists", "bob", "CreateLoginProfile", "UserName", "bob", "Password", "correct horse")
	c.refused(c.admin, "PasswordPolicyViolation", "8", "UpdateLoginProfile", "UserName", "bob", "Password", "short")
	u, err := users.find(c.Store.View(), c.admin.Account, "bob")
	if err != nil || !opens(u.Login, "correct horse") || opens(u.Login, "wrong horse") {
		t.Errorf("the password: %v", err)
	}
	bob := Principal{Account: c.admin.Account, User: "bob"}
	c.must(c.admin, "AttachUserPolicy", "UserName", "bob", "PolicyArn", builtIn+"IAMUserChangePassword")
	c.refused(bob, "AccessDenied", "old password", "ChangePassword", "OldPassword", "wrong horse", "NewPassword", "battery staple")
	c.must(bob, "ChangePassword", "OldPassword", "correct horse", "NewPassword", "battery staple")
	c.must(c.admin, "DeleteLoginProfile", "UserName", "bob")
	c.refused(c.admin, "NoSuchEntity", "bob", "GetLoginProfile", "UserName", "bob")

	made := c.must(c.admin, "CreateSigningCertificate", "UserName", "bob")
	c.refused(c.admin, "DuplicateCertificate", text(made, "CertificateId"), "UploadSigningCertificate", "UserName", "bob", "CertificateBody", text(made, "CertificateBody"))
	c.refused(c.admin, "MalformedCertificate", "CertificateBody", "UploadSigningCertificate", "UserName", "bob", "CertificateBody", "x")
	c.must(c.admin, "UpdateSigningCertificate", "UserName", "bob", "CertificateId", text(made, "CertificateId"), "Status", "Inactive")
	c.must(c.admin, "DeleteSigningCertificate", "UserName", "bob", "CertificateId", text(made, "CertificateId"))
	c.must(c.admin, "UploadServerCertificate", "ServerCertificateName", "web", "CertificateBody", text(made, "CertificateBody"), "PrivateKey", text(made, "PrivateKey"))
	other := c.must(c.admin, "CreateSigningCertificate", "UserName", "bob")
	c.refused(c.admin, "KeyPairMismatch", "PrivateKey", "UploadServerCertificate", "ServerCertificateName", "bad", "CertificateBody", text(made, "CertificateBody"), "PrivateKey", text(other, "PrivateKey"))
	c.must(c.admin, "UpdateServerCertificate", "ServerCertificateName", "web", "NewServerCertificateName", "www")
	if got := c.must(c.admin, "GetServerCertificate", "ServerCertificateName", "www"); strings.Contains(got, "PRIVATE") {
		t.Error("a private key is told")
	}
	c.must(c.admin, "DeleteServerCertificate", "ServerCertificateName", "www")

	c.must(c.admin, "CreateRole", "RoleName", "r", "AssumeRolePolicyDocument", trust(`{"Service":"ec2.amazonaws.com"}`, "sts:AssumeRole", ""))
	c.must(c.admin, "CreateInstanceProfile", "InstanceProfileName", "p")
	c.must(c.admin, "AddRoleToInstanceProfile", "InstanceProfileName", "p", "RoleName", "r")
	c.refused(c.admin, "LimitExceeded", "1", "AddRoleToInstanceProfile", "InstanceProfileName", "p", "RoleName", "r")
	c.refused(c.admin, "DeleteConflict", "instance profile", "DeleteRole", "RoleName", "r")
	if got := c.must(c.admin, "ListInstanceProfilesForRole", "RoleName", "r"); text(got, "InstanceProfileName") != "p" || text(got, "RoleName") != "r" {
		t.Error(got)
	}
	c.must(c.admin, "TagRole", "RoleName", "r", "Tags.member.1.Key", "a", "Tags.member.1.Value", "b")
	if got := c.must(c.admin, "ListRoleTags", "RoleName", "r"); text(got, "Value") != "b" {
		t.Error(got)
	}
	c.must(c.admin, "UntagRole", "RoleName", "r", "TagKeys.member.1", "a")
	c.must(c.admin, "RemoveRoleFromInstanceProfile", "InstanceProfileName", "p", "RoleName", "r")
	c.must(c.admin, "DeleteRole", "RoleName", "r")
	c.must(c.admin, "DeleteInstanceProfile", "InstanceProfileName", "p")
}
