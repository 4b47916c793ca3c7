package euca

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/spf13/cobra"

	"mallee/wire/sigv4"
)

// place is a cloud that images come from or go to: Amazon's, or one that answers
// like it.
type place struct {
	name string // of its region
	ec2  *Client
	ebs  *ebs.Client
}

// id tells places apart that have one name: every mallee's region may be called
// mallee.
func (p *place) id() string {
	sum := sha256.Sum256([]byte(p.ec2.EC2))
	return p.name + "-" + hex.EncodeToString(sum[:4])
}

// elsewhere is what the command line says of the other cloud.
type elsewhere struct{ profile, region, endpoint string }

func (e *elsewhere) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&e.profile, "profile", "", "whose credentials are used, of AWS's configuration files (default: the environment's)")
	f.StringVar(&e.region, "region", "", "the region (default: the profile's)")
	f.StringVar(&e.endpoint, "endpoint", "", "where EC2, the EBS direct API and S3 answer together: another mallee (default: AWS's own addresses)")
}

// place by AWS's own configuration.
func (e *elsewhere) place(ctx context.Context) (*place, error) {
	var options []func(*config.LoadOptions) error
	if e.profile != "" {
		options = append(options, config.WithSharedConfigProfile(e.profile))
	}
	if e.region != "" {
		options = append(options, config.WithRegion(e.region))
	}
	c, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("read AWS's configuration: %w", err)
	}
	if c.Region == "" {
		return nil, errors.New("no region is known: name one by --region")
	}
	if c.Credentials == nil {
		return nil, errors.New("no credentials are known: name a profile by --profile, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	found, err := c.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("find credentials: %w; name a profile by --profile, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", err)
	}
	endpoint := strings.TrimRight(e.endpoint, "/")
	suffix := "amazonaws.com"
	if strings.HasPrefix(c.Region, "cn-") {
		suffix += ".cn"
	}
	return &place{
		name: c.Region,
		ec2: &Client{
			Credentials: sigv4.Credentials{AccessKey: found.AccessKeyID, Secret: found.SecretAccessKey, Token: found.SessionToken},
			Region:      c.Region, http: http.Client{Timeout: requestTimeout},
			EC2: cmp.Or(endpoint, "https://ec2."+c.Region+"."+suffix), S3: cmp.Or(endpoint, "https://s3."+c.Region+"."+suffix),
		},
		ebs: ebsClient(c.Region, endpoint, c.Credentials),
	}, nil
}

// here is the cloud that runs on the folder.
func here(folder Folder) (*place, error) {
	client, _, err := Connect(folder)
	if err != nil {
		return nil, err
	}
	c := client.Credentials
	// The root of the same address serves all APIs by the signature's service.
	root := strings.TrimSuffix(client.EC2, "/services/compute")
	return &place{
		name: client.Region, ec2: client,
		ebs: ebsClient(client.Region, root, credentials.NewStaticCredentialsProvider(c.AccessKey, c.Secret, c.Token)),
	}, nil
}

func ebsClient(region, endpoint string, who aws.CredentialsProvider) *ebs.Client {
	o := ebs.Options{Region: region, Credentials: aws.NewCredentialsCache(who), HTTPClient: &http.Client{Timeout: requestTimeout}}
	if endpoint != "" {
		o.BaseEndpoint = &endpoint
	}
	return ebs.New(o)
}

// importCommand is `mallee image import`.
func importCommand() *cobra.Command {
	parent := &cobra.Command{Use: "import", Short: "Bring an image from another cloud"}
	var from elsewhere
	var w wanted
	var key string
	cmd := &cobra.Command{
		Use:   "aws AMI",
		Short: "Bring an AMI from AWS, or from another mallee",
		Long: `Bring an AMI here. Of an EBS-backed one the blocks of its snapshots are read by the EBS direct API, several at a time,
each compared with its checksum; the block device mapping, architecture and boot mode are kept. It needs the permissions
ec2:DescribeImages, ebs:ListSnapshotBlocks and ebs:GetSnapshotBlock, and the snapshots to be one's own or shared.
An S3-backed one comes by its bundle, which is decrypted with the private key of whoever bundled it (--privatekey).

An import that was interrupted goes on where it was.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return importAWS(cmd, args[0], &from, &w, key)
		},
	}
	from.flags(cmd)
	cmd.Flags().StringVar(&w.name, "name", "", "what the image is registered as (default: its name there)")
	cmd.Flags().StringVar(&key, "privatekey", "", "a file with the private key of an S3-backed image's maker (default: EC2_PRIVATE_KEY)")
	parent.AddCommand(cmd)
	return parent
}

// exportCommand is `mallee image export`.
func exportCommand() *cobra.Command {
	parent := &cobra.Command{Use: "export", Short: "Take an image to another cloud"}
	var to elsewhere
	var name string
	cmd := &cobra.Command{
		Use:   "aws EMI",
		Short: "Take an EBS-backed image to AWS, or to another mallee",
		Long: `Take an image there: its snapshots are written block by block by the EBS direct API, and registered with the same block
device mapping, architecture and boot mode. It needs the permissions ebs:StartSnapshot, ebs:PutSnapshotBlock,
ebs:CompleteSnapshot and ec2:RegisterImage.

An export that was interrupted goes on where it was.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			there, err := to.place(cmd.Context())
			if err != nil {
				return err
			}
			return migrate(cmd, args[0], name, func(here *place) (from, to *place) { return here, there })
		},
	}
	to.flags(cmd)
	cmd.Flags().StringVar(&name, "name", "", "what the image is registered as (default: its name here)")
	parent.AddCommand(cmd)
	return parent
}

func importAWS(cmd *cobra.Command, id string, from *elsewhere, w *wanted, key string) error {
	there, err := from.place(cmd.Context())
	if err != nil {
		return err
	}
	about, err := there.describe(cmd.Context(), id)
	if err != nil {
		return err
	}
	if about.get("rootDeviceType") != "ebs" {
		return importBundle(cmd, there, about, w, key)
	}
	return migrate(cmd, id, w.name, func(here *place) (from, to *place) { return there, here })
}

// migrate an EBS-backed image between the cloud of the folder and another.
func migrate(cmd *cobra.Command, id, name string, ends func(here *place) (from, to *place)) error {
	out, err := printerOf(cmd)
	if err != nil {
		return err
	}
	folder, err := FolderOf(cmd)
	if err != nil {
		return err
	}
	local, err := here(folder)
	if err != nil {
		return err
	}
	show := newProgress(cmd.ErrOrStderr())
	defer show.end()
	m := &migration{dir: folder.Path("migrations"), show: show}
	m.from, m.to = ends(local)
	made, err := m.image(cmd.Context(), id, name)
	if err != nil {
		return fmt.Errorf("bring %s from %s to %s: %w", id, m.from.name, m.to.name, err)
	}
	show.end()
	return out.print(map[string]string{"image": made}, "IMAGE\t"+made)
}

// describe an image that is there.
func (p *place) describe(ctx context.Context, id string) (*element, error) {
	reply, err := p.ec2.Call(ctx, "DescribeImages", map[string][]string{"ImageId.1": {id}})
	if err != nil {
		return nil, fmt.Errorf("look %s up in %s: %w", id, p.name, err)
	}
	for i := range reply.each("imagesSet") {
		return i, nil
	}
	return nil, fmt.Errorf("%s has no image %s", p.name, id)
}
