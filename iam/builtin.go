package iam

import (
	"strings"
	"time"

	"mallee/cloud"
)

// builtIn is how the ARNs of the cloud's own policies begin.
const builtIn = "arn:aws:iam::aws:policy/"

// cloudPolicies are managed policies that every account has, under the names
// that AWS has them by; they say what those say, of the services that are here.
var cloudPolicies = builtInPolicies()

func builtInPolicies() map[string]*cloud.ManagedPolicy {
	all := map[string]*cloud.ManagedPolicy{}
	for _, p := range []struct{ name, about, statement string }{
		{"AdministratorAccess", "Everything", `{"Effect":"Allow","Action":"*","Resource":"*"}`},
		{"PowerUserAccess", "Everything but users and their rights", `{"Effect":"Allow","NotAction":"iam:*","Resource":"*"},{"Effect":"Allow","Action":["iam:ListRoles","iam:GetAccountSummary"],"Resource":"*"}`},
		{"ReadOnlyAccess", "To see everything", `{"Effect":"Allow","Action":["ec2:Describe*","ec2:Get*","ebs:List*","ebs:Get*","s3:Get*","s3:List*","iam:Get*","iam:List*","iam:Simulate*","sts:GetCallerIdentity"],"Resource":"*"}`},
		{"AmazonEC2FullAccess", "Everything of EC2", `{"Effect":"Allow","Action":"ec2:*","Resource":"*"}`},
		{"AmazonEC2ReadOnlyAccess", "To see EC2", `{"Effect":"Allow","Action":["ec2:Describe*","ec2:Get*"],"Resource":"*"}`},
		{"AmazonS3FullAccess", "Everything of S3", `{"Effect":"Allow","Action":"s3:*","Resource":"*"}`},
		{"AmazonS3ReadOnlyAccess", "To see S3", `{"Effect":"Allow","Action":["s3:Get*","s3:List*","s3:Describe*"],"Resource":"*"}`},
		{"IAMFullAccess", "Everything of IAM", `{"Effect":"Allow","Action":"iam:*","Resource":"*"}`},
		{"IAMReadOnlyAccess", "To see IAM", `{"Effect":"Allow","Action":["iam:Get*","iam:List*","iam:Simulate*"],"Resource":"*"}`},
		{"IAMUserChangePassword", "To change the own password", `{"Effect":"Allow","Action":"iam:ChangePassword","Resource":"arn:aws:iam::*:user/${aws:username}"}`},
	} {
		since := time.Date(2015, 2, 6, 18, 39, 46, 0, time.UTC)
		all[builtIn+p.name] = &cloud.ManagedPolicy{
			Entity:      cloud.Entity{ID: ("ANPA" + strings.ToUpper(p.name) + strings.Repeat("A", 17))[:21], Account: "aws", Name: p.name, Path: "/", CreatedAt: since},
			Description: p.about, Default: 1, Last: 1, UpdatedAt: since,
			Versions: []cloud.PolicyVersion{{Number: 1, Document: `{"Version":"2012-10-17","Statement":[` + p.statement + `]}`, CreatedAt: since}},
		}
	}
	return all
}
