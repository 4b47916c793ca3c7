package euca

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mallee/bundle"
)

const (
	rootDevice  = "/dev/sda1"        // the root volume's place in an EBS-backed image's mapping
	importEvery = time.Second        // how often an import is asked how it stands
	imageTag    = "mallee:image"     // on a snapshot: the image, NAME-VERSION, that it was made of
	leastPart   = 16 << 20           // bytes of an upload's part, each of which is held in memory
	mostParts   = 9_000              // S3 takes 10,000
	uploadedRaw = "mallee-snapshot/" // begins the key of what is imported
)

// volume registers the image as an EBS-backed one: its file is uploaded, imported as a snapshot, and the snapshot
// registered. What an earlier call did is not done again; a snapshot is known by its tag.
func (in *installer) volume(ctx context.Context, ids installed) (imageID, snapshot string, err error) {
	of := in.parcel.name + "-" + in.parcel.version
	if snapshot, err = in.imported(ctx, of); err != nil {
		return "", "", err
	}
	if snapshot == "" {
		if snapshot, err = in.importSnapshot(ctx, of); err != nil {
			return "", "", err
		}
	}
	registered := in.parcel.registered
	if id, err := in.find(ctx, registered, snapshot); id != "" || err != nil {
		return id, snapshot, err
	}
	in.show.show("register "+in.parcel.name, 0, 0)
	params := in.described(registered, bundle.Machine, ids)
	params.Set("RootDeviceName", rootDevice)
	params.Set("BlockDeviceMapping.1.DeviceName", rootDevice)
	params.Set("BlockDeviceMapping.1.Ebs.SnapshotId", snapshot)
	imageID, err = in.register(ctx, params)
	return imageID, snapshot, err
}

// imported is the snapshot that an earlier call made of the image; "" is none.
func (in *installer) imported(ctx context.Context, of string) (string, error) {
	var reply struct {
		Snapshots []struct {
			ID     string `xml:"snapshotId"`
			Status string `xml:"status"`
		} `xml:"snapshotSet>item"`
	}
	err := in.client.Query(ctx, "DescribeSnapshots", url.Values{"Owner.1": {"self"}, "Filter.1.Name": {"tag:" + imageTag}, "Filter.1.Value.1": {of}}, &reply)
	if err != nil {
		return "", err
	}
	for _, s := range reply.Snapshots {
		if s.Status == "completed" {
			return s.ID, nil
		}
	}
	return "", nil
}

// importSnapshot uploads the file, has it imported, and removes it again.
func (in *installer) importSnapshot(ctx context.Context, of string) (id string, err error) {
	key := uploadedRaw + of + "/" + strings.ToLower(in.parcel.format)
	if err := in.client.putFile(ctx, catalogBucket, key, in.parcel.upload, leastPart, in.show.show); err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, in.client.DeleteObject(context.WithoutCancel(ctx), catalogBucket, key))
	}()
	var task importTask
	err = in.client.Query(ctx, "ImportSnapshot", url.Values{
		"Description": {of}, "DiskContainer.Format": {in.parcel.format},
		"DiskContainer.UserBucket.S3Bucket": {catalogBucket}, "DiskContainer.UserBucket.S3Key": {key},
	}, &task)
	if err != nil {
		return "", err
	}
	if id, err = in.await(ctx, task); err != nil {
		return "", err
	}
	var tagged struct{}
	return id, in.client.Query(ctx, "CreateTags", url.Values{"ResourceId.1": {id}, "Tag.1.Key": {imageTag}, "Tag.1.Value": {of}}, &tagged)
}

// importTask is how an import stands.
type importTask struct {
	ID       string `xml:"importTaskId"`
	Status   string `xml:"snapshotTaskDetail>status"`
	Message  string `xml:"snapshotTaskDetail>statusMessage"`
	Progress string `xml:"snapshotTaskDetail>progress"`
	Snapshot string `xml:"snapshotTaskDetail>snapshotId"`
}

// await the import's end. One that nobody waits for any more is cancelled.
func (in *installer) await(ctx context.Context, t importTask) (string, error) {
	tick := time.NewTicker(importEvery)
	defer tick.Stop()
	for {
		switch t.Status {
		case "completed":
			return t.Snapshot, nil
		case "error", "deleted", "deleting":
			return "", fmt.Errorf("import %s of the snapshot failed: %s", t.ID, t.Message)
		}
		percent, _ := strconv.ParseInt(t.Progress, 10, 64)
		in.show.show("import the snapshot", percent, 100)
		select {
		case <-ctx.Done():
			var reply struct{}
			cancelled := in.client.Query(context.WithoutCancel(ctx), "CancelImportTask", url.Values{"ImportTaskId": {t.ID}}, &reply)
			return "", errors.Join(ctx.Err(), cancelled)
		case <-tick.C:
		}
		var reply struct {
			Tasks []importTask `xml:"importSnapshotTaskSet>item"`
		}
		if err := in.client.Query(ctx, "DescribeImportSnapshotTasks", url.Values{"ImportTaskId.1": {t.ID}}, &reply); err != nil {
			if ctx.Err() != nil {
				continue // and be cancelled
			}
			return "", err
		}
		if len(reply.Tasks) != 1 {
			return "", fmt.Errorf("import %s of the snapshot is not known any more", t.ID)
		}
		t = reply.Tasks[0]
	}
}

// putFile uploads a file of any size, in parts of at least that many bytes.
func (c *Client) putFile(ctx context.Context, bucket, key, file string, part int64, progress func(string, int64, int64)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	part = max(part, info.Size()/mostParts+1)
	var upload struct {
		ID string `xml:"UploadId"`
	}
	if err := c.multipart(ctx, http.MethodPost, bucket, key, url.Values{"uploads": {""}}, nil, &upload); err != nil {
		return err
	}
	parts, err := c.putParts(ctx, bucket, key, upload.ID, f, info.Size(), part, progress)
	if err == nil {
		err = c.complete(ctx, bucket, key, upload.ID, parts)
	}
	if err != nil {
		return errors.Join(err, c.multipart(context.WithoutCancel(ctx), http.MethodDelete, bucket, key, url.Values{"uploadId": {upload.ID}}, nil, nil))
	}
	return nil
}

// uploadedPart is how S3 wants to be told of a part.
type uploadedPart struct {
	Number int    `xml:"PartNumber"`
	ETag   string `xml:"ETag"`
}

func (c *Client) putParts(ctx context.Context, bucket, key, id string, r io.Reader, size, part int64, progress func(string, int64, int64)) ([]uploadedPart, error) {
	var parts []uploadedPart
	buf := make([]byte, min(part, size))
	for done := int64(0); done < size || len(parts) == 0; {
		progress("upload "+filepath.Base(key), done, size)
		n, err := io.ReadFull(r, buf[:min(part, size-done)])
		if err != nil {
			return nil, fmt.Errorf("reading what is uploaded: %w", err)
		}
		number := len(parts) + 1
		query := url.Values{"uploadId": {id}, "partNumber": {strconv.Itoa(number)}}
		resp, err := c.send(ctx, &c.http, http.MethodPut, c.objectURL(bucket, key)+"?"+query.Encode(), "s3", nil, buf[:n])
		if err != nil {
			return nil, fmt.Errorf("upload part %d of %s/%s: %w", number, bucket, key, err)
		}
		resp.Body.Close()
		parts = append(parts, uploadedPart{number, resp.Header.Get("ETag")})
		done += int64(n)
	}
	progress("upload "+filepath.Base(key), size, size)
	return parts, nil
}

func (c *Client) complete(ctx context.Context, bucket, key, id string, parts []uploadedPart) error {
	body, err := xml.Marshal(struct {
		XMLName xml.Name       `xml:"CompleteMultipartUpload"`
		Parts   []uploadedPart `xml:"Part"`
	}{Parts: parts})
	if err != nil {
		return err
	}
	var reply struct {
		Code    string
		Message string
	}
	if err := c.multipart(ctx, http.MethodPost, bucket, key, url.Values{"uploadId": {id}}, body, &reply); err != nil {
		return err
	}
	if reply.Code != "" { // S3 may have answered 200 before it failed
		return &ServiceError{Code: reply.Code, Message: reply.Message}
	}
	return nil
}

// multipart does one of the requests around an upload in parts.
func (c *Client) multipart(ctx context.Context, method, bucket, key string, query url.Values, body []byte, out any) error {
	reply, err := c.do(ctx, method, c.objectURL(bucket, key)+"?"+query.Encode(), "s3", nil, body)
	if err != nil {
		return fmt.Errorf("upload %s/%s: %w", bucket, key, err)
	}
	if out == nil {
		return nil
	}
	if err := xml.Unmarshal(reply, out); err != nil {
		return fmt.Errorf("upload %s/%s: the reply can't be read: %w", bucket, key, err)
	}
	return nil
}
