// Package peer reads images of another cloud that answers like EC2: Amazon's, or
// another mallee. What is read of a snapshot is compared, block by block, with the
// checksum that comes with it.
package peer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"golang.org/x/sync/errgroup"

	"mallee/wire/sigv4"
)

const (
	// BlockSize is the length of a snapshot's block in bytes.
	BlockSize = 512 << 10

	requestTimeout = 2 * time.Minute
	maxReply       = 4 << 20 // bytes of a description
)

// Cloud is another cloud, with a key of it.
type Cloud struct {
	Region   string `json:"region"`   // its name, here and there
	Endpoint string `json:"endpoint"` // where EC2 and the EBS direct API answer together
	Key      string `json:"access_key_id"`
	Secret   string `json:"secret_access_key"`
}

// Image is what another cloud says of an image.
type Image struct {
	ID             string   `xml:"imageId"`
	State          string   `xml:"imageState"`
	Public         bool     `xml:"isPublic"`
	Name           string   `xml:"name"`
	Description    string   `xml:"description"`
	Architecture   string   `xml:"architecture"`
	BootMode       string   `xml:"bootMode"`
	Platform       string   `xml:"platform"`
	RootDeviceType string   `xml:"rootDeviceType"`
	RootDevice     string   `xml:"rootDeviceName"`
	Virtualization string   `xml:"virtualizationType"`
	ENA            bool     `xml:"enaSupport"`
	Devices        []Device `xml:"blockDeviceMapping>item"`
}

// Device of an image: a volume, or an ephemeral disk.
type Device struct {
	Name        string  `xml:"deviceName"`
	VirtualName string  `xml:"virtualName"`
	Volume      *Volume `xml:"ebs"`
}

// Volume of a device.
type Volume struct {
	Snapshot            string `xml:"snapshotId"`
	GiB                 int    `xml:"volumeSize"`
	Type                string `xml:"volumeType"`
	IOPS                int    `xml:"iops"`
	Throughput          int    `xml:"throughput"`
	DeleteOnTermination bool   `xml:"deleteOnTermination"`
}

// Image describes one; the error names what the other cloud said.
func (c *Cloud) Image(ctx context.Context, id string) (*Image, error) {
	form := url.Values{"Action": {"DescribeImages"}, "Version": {"2016-11-15"}, "ImageId.1": {id}}
	reply, err := c.query(ctx, form)
	if err != nil {
		return nil, fmt.Errorf("look %s up in %s: %w", id, c.Region, err)
	}
	var out struct {
		Images []Image `xml:"imagesSet>item"`
	}
	if err := xml.Unmarshal(reply, &out); err != nil {
		return nil, fmt.Errorf("look %s up in %s: %w", id, c.Region, err)
	}
	if len(out.Images) != 1 {
		return nil, fmt.Errorf("%s has no image %s", c.Region, id)
	}
	return &out.Images[0], nil
}

// query EC2 there.
func (c *Cloud) query(ctx context.Context, form url.Values) ([]byte, error) {
	body := []byte(form.Encode())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Endpoint+"/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if err := sigv4.Sign(r, body, sigv4.Credentials{AccessKey: c.Key, Secret: c.Secret}, c.Region, "ec2", time.Now()); err != nil {
		return nil, err
	}
	client := http.Client{Timeout: requestTimeout}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		var e struct {
			Code    string `xml:"Errors>Error>Code"`
			Message string `xml:"Errors>Error>Message"`
		}
		if xml.Unmarshal(reply, &e) != nil || e.Code == "" {
			return nil, errors.New(resp.Status)
		}
		return nil, fmt.Errorf("%s (%s)", e.Message, e.Code)
	}
	return reply, nil
}

// Blocks of a snapshot there.
func (c *Cloud) Blocks(ctx context.Context, snapshot string, p Passage) error {
	client := ebs.New(ebs.Options{
		Region: c.Region, BaseEndpoint: aws.String(strings.TrimRight(c.Endpoint, "/")), HTTPClient: &http.Client{Timeout: requestTimeout},
		Credentials: credentials.NewStaticCredentialsProvider(c.Key, c.Secret, ""),
	})
	return Blocks(ctx, client, snapshot, p)
}

// Passage is what becomes of the blocks of a snapshot that is read.
type Passage struct {
	AtOnce int                                                                // how many blocks are on their way together
	Begin  func(ctx context.Context, gib int64) error                         // told the volume's size, before the first block of each page
	Skip   func(index int64) (bool, error)                                    // says which blocks aren't wanted; nil: all are
	Take   func(ctx context.Context, index int64, b []byte, d [32]byte) error // gets a block and its SHA-256; several at once
}

// Blocks reads a snapshot page by page, in the order of its blocks.
func Blocks(ctx context.Context, client *ebs.Client, snapshot string, p Passage) error {
	in := &ebs.ListSnapshotBlocksInput{SnapshotId: &snapshot}
	for {
		page, err := client.ListSnapshotBlocks(ctx, in)
		if err != nil {
			return err
		}
		if size := aws.ToInt32(page.BlockSize); size != BlockSize {
			return fmt.Errorf("the blocks of %s have %d bytes, and blocks of %d are known", snapshot, size, BlockSize)
		}
		if err := p.Begin(ctx, aws.ToInt64(page.VolumeSize)); err != nil {
			return err
		}
		if err := p.page(ctx, client, snapshot, page); err != nil {
			return err
		}
		if page.NextToken == nil {
			return nil
		}
		in.NextToken = page.NextToken
	}
}

func (p *Passage) page(ctx context.Context, client *ebs.Client, snapshot string, page *ebs.ListSnapshotBlocksOutput) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(p.AtOnce)
	for _, b := range page.Blocks {
		index := int64(aws.ToInt32(b.BlockIndex))
		if p.Skip != nil {
			skip, err := p.Skip(index)
			if err != nil {
				return errors.Join(err, group.Wait())
			}
			if skip {
				continue
			}
		}
		group.Go(func() error {
			block, digest, err := get(ctx, client, snapshot, b.BlockIndex, b.BlockToken)
			if err == nil {
				err = p.Take(ctx, index, block, digest)
			}
			if err != nil {
				return fmt.Errorf("block %d: %w", index, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// get a block, and compare it with its checksum.
func get(ctx context.Context, client *ebs.Client, snapshot string, index *int32, token *string) ([]byte, [32]byte, error) {
	var digest [32]byte
	got, err := client.GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{SnapshotId: &snapshot, BlockIndex: index, BlockToken: token})
	if err != nil {
		return nil, digest, err
	}
	defer got.BlockData.Close()
	block, err := io.ReadAll(io.LimitReader(got.BlockData, BlockSize+1))
	if err != nil {
		return nil, digest, err
	}
	digest = sha256.Sum256(block)
	if sum := base64.StdEncoding.EncodeToString(digest[:]); len(block) != BlockSize || sum != aws.ToString(got.Checksum) {
		return nil, digest, fmt.Errorf("it came with %d bytes of checksum %s, and should have %d of %s", len(block), sum, BlockSize, aws.ToString(got.Checksum))
	}
	return block, digest, nil
}
