package cloud

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

// Eucarc is what a shell knows that has sourced DIR/eucarc: what that exports.
func (c *Cloud) Eucarc() (map[string]string, error) {
	f, err := os.Open(c.Path("eucarc"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	vars := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line, exports := strings.CutPrefix(lines.Text(), "export ")
		name, value, sets := strings.Cut(line, "=")
		if exports && sets {
			vars[name] = strings.Trim(value, "'")
		}
	}
	return vars, nil
}

// Access is what a client has to know.
type Access struct {
	Endpoint, Region, AccessKey, Secret, Account string
}

// Access of the administrator, at the program that runs now.
func (c *Cloud) Access() (Access, error) {
	vars, err := c.Eucarc()
	if err != nil {
		return Access{}, err
	}
	endpoint, err := c.Endpoint()
	return Access{endpoint, vars["AWS_DEFAULT_REGION"], vars["AWS_ACCESS_KEY_ID"], vars["AWS_SECRET_ACCESS_KEY"], vars["EC2_USER_ID"]}, err
}

// EC2 is Amazon's client for it.
func (a Access) EC2() *ec2.Client {
	return ec2.New(ec2.Options{Region: a.Region, BaseEndpoint: &a.Endpoint, Credentials: a.credentials(), Retryer: retryer})
}

// EBS is Amazon's client for the EBS direct API.
func (a Access) EBS() *ebs.Client {
	return ebs.New(ebs.Options{Region: a.Region, BaseEndpoint: &a.Endpoint, Credentials: a.credentials(), Retryer: retryer})
}

// S3 is Amazon's client for Walrus.
func (a Access) S3() *s3.Client {
	endpoint := a.Endpoint + "/services/objectstorage"
	return s3.New(s3.Options{Region: a.Region, BaseEndpoint: &endpoint, Credentials: a.credentials(), Retryer: retryer, UsePathStyle: true})
}

// STS is Amazon's client for it.
func (a Access) STS() *sts.Client {
	return sts.New(sts.Options{Region: a.Region, BaseEndpoint: &a.Endpoint, Credentials: a.credentials(), Retryer: retryer})
}

// retryer tries again where the SDK itself has closed the connection that it
// reads a reply from (aws-sdk-go-v2 issue 2737), and nowhere else, so that what
// is wrong with the cloud is seen.
var retryer = retry.NewStandard(func(o *retry.StandardOptions) {
	o.Retryables = []retry.IsErrorRetryable{retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
		return aws.BoolTernary(errors.Is(err, net.ErrClosed))
	})}
	o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
})

func (a Access) credentials() aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(a.AccessKey, a.Secret, "")
}

// Environ has what a program needs to use the cloud as its eucarc says.
func (c *Cloud) Environ() ([]string, error) {
	vars, err := c.Eucarc()
	if err != nil {
		return nil, err
	}
	env := append(Environ(), "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=")
	for name, value := range vars {
		env = append(env, name+"="+value)
	}
	return env, nil
}

// AllowSSH from everywhere to the instances of the administrator's default group,
// which lets nobody in by itself.
func (c *Cloud) AllowSSH(ctx context.Context) error {
	client, err := c.EC2()
	if err != nil {
		return err
	}
	group, protocol, everywhere, port := "default", "tcp", "0.0.0.0/0", int32(22)
	_, err = client.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{
		GroupName: &group, IpProtocol: &protocol, FromPort: &port, ToPort: &port, CidrIp: &everywhere,
	})
	var refused smithy.APIError
	if errors.As(err, &refused) && refused.ErrorCode() == "InvalidPermission.Duplicate" {
		return nil
	}
	return err
}

// EC2 of the administrator; it fails where the cloud isn't up.
func (c *Cloud) EC2() (*ec2.Client, error) {
	a, err := c.Access()
	return a.EC2(), err
}
