package iam

import (
	"fmt"
	"strings"

	"mallee/durable"
)

// Region is the name of the only region of a cloud. Its zones add a letter, which
// clients cut off to get from one to the other.
const Region = "mallee-1"

// WriteEucarc writes what a shell sources to use the cloud at endpoint
// (http://127.0.0.1:8773), mode 0600, under the names that Eucalyptus's tools
// and AWS's read.
func (c Credentials) WriteEucarc(path, endpoint, s3 string) error {
	var b strings.Builder
	b.WriteString("unset AWS_SESSION_TOKEN AWS_SECURITY_TOKEN AWS_PROFILE\n") // of another cloud: they would go along
	for _, v := range [][2]string{
		{"EC2_URL", endpoint + "/services/compute"},
		{"S3_URL", s3},
		{"EUARE_URL", endpoint + "/services/Euare"},
		{"AWS_IAM_URL", endpoint + "/services/Euare"},
		{"TOKEN_URL", endpoint + "/services/Tokens"},
		{"AWS_ENDPOINT_URL", endpoint},
		{"AWS_DEFAULT_REGION", Region},
		{"AWS_ACCESS_KEY_ID", c.AccessKey},
		{"AWS_SECRET_ACCESS_KEY", c.Secret},
		{"EC2_ACCESS_KEY", c.AccessKey},
		{"EC2_SECRET_KEY", c.Secret},
		{"EC2_USER_ID", string(c.Account)},
		{"EC2_ACCOUNT_NUMBER", string(c.Account)},
		{"EC2_CERT", c.CertPath},
		{"EC2_PRIVATE_KEY", c.KeyPath},
		{"EUCALYPTUS_CERT", c.CloudPath},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], shellQuote(v[1]))
	}
	if err := durable.WriteFile(path, []byte(b.String())); err != nil {
		return fmt.Errorf("write how to use the cloud: %w", err)
	}
	return nil
}

// shellQuote makes s one word for a POSIX shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
