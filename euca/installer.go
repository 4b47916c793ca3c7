package euca

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"

	"mallee/bundle"
	"mallee/cloud"
	"mallee/image"
)

// catalogBucket holds the bundles of the images that are installed by `mallee image`.
const catalogBucket = "mallee-catalog"

// execRead lets the cloud read a bundle, and nobody else.
const execRead = "aws-exec-read"

// A parcel is an image with all that its registration says of it.
type parcel struct {
	name           string // of its files
	version        string // by which the same image is known again
	registered     string // what it is registered as; "" is NAME-VERSION
	description    string
	arch           string
	virtualization cloud.Virtualization
	boot           cloud.BootMode
	kernel         string // of a paravirtual image that brings none itself
	ramdisk        string
	public, ebs    bool
	files          image.Artifacts
	upload         string // for EBS: the file that the cloud imports, and its format
	format         string
}

// installed is what an installation prints.
type installed struct {
	Image    string `json:"image"`
	Kernel   string `json:"kernel,omitempty"`
	Ramdisk  string `json:"ramdisk,omitempty"`
	Snapshot string `json:"snapshot,omitempty"`
}

func (i installed) String() string {
	var lines []string
	for _, id := range []string{i.Kernel, i.Ramdisk, i.Image} {
		if id != "" {
			lines = append(lines, "IMAGE\t"+id)
		}
	}
	return strings.Join(lines, "\n")
}

// installer brings one image into the cloud.
type installer struct {
	client  *Client
	secrets secrets
	parcel  parcel
	show    *progress
}

// all files of the image: a trio's machine image names its kernel and ramdisk.
func (in *installer) all(ctx context.Context) (ids installed, err error) {
	p := in.parcel
	if err := in.client.CreateBucket(ctx, catalogBucket); err != nil {
		return ids, err
	}
	if p.files.Kernel != "" {
		if ids.Kernel, err = in.one(ctx, bundle.Kernel, p.files.Kernel, p.name+"-kernel", ids); err != nil {
			return ids, err
		}
	}
	if p.files.Ramdisk != "" {
		if ids.Ramdisk, err = in.one(ctx, bundle.Ramdisk, p.files.Ramdisk, p.name+"-ramdisk", ids); err != nil {
			return ids, err
		}
	}
	made := ids
	if p.kernel != "" {
		made.Kernel, made.Ramdisk = p.kernel, p.ramdisk
	}
	if p.ebs {
		ids.Image, ids.Snapshot, err = in.volume(ctx, made)
	} else {
		ids.Image, err = in.one(ctx, bundle.Machine, p.machine(), p.name, made)
	}
	if err == nil && p.public {
		err = in.share(ctx, ids)
	}
	return ids, err
}

// machine is the file of the machine image.
func (p parcel) machine() string {
	if p.virtualization == cloud.HVM {
		return p.files.Disk
	}
	return p.files.Root
}

// as is the name that one of the parcel's files is registered under.
func (p parcel) as(kind bundle.Kind, name string) string {
	if p.registered != "" && kind == bundle.Machine {
		return p.registered
	}
	return name + "-" + p.version
}

// one file: bundled straight into Walrus, then registered, under a name that
// says which build it is. What is registered already is not done again.
func (in *installer) one(ctx context.Context, kind bundle.Kind, file, name string, ids installed) (string, error) {
	registered := in.parcel.as(kind, name)
	up := newUpload(in.client, catalogBucket, name+"-"+in.parcel.version+"/")
	key := up.folder + name + ".manifest.xml"
	if id, err := in.find(ctx, registered, up.bucket+"/"+key); id != "" || err != nil {
		return id, err
	}
	src, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return "", err
	}
	if kind != bundle.Machine {
		ids = installed{} // a kernel or ramdisk has none itself
	}
	_, manifest, err := bundle.Write(ctx, src, info.Size(), bundle.Options{
		Prefix: name, Account: in.client.Account, Kind: kind, Architecture: in.parcel.arch,
		KernelID: ids.Kernel, RamdiskID: ids.Ramdisk,
		CloudCert: in.secrets.cloud, UserCert: in.secrets.user, UserKey: in.secrets.key,
		Progress: func(done, total int64) { in.show.show("bundle and upload "+name, done, total) },
	}, up.part)
	if err = up.end(ctx, err); err != nil {
		return "", err
	}
	if err := in.client.PutObject(ctx, up.bucket, key, execRead, manifest); err != nil {
		return "", err
	}
	in.show.show("register "+name, 0, 0)
	params := in.described(registered, kind, ids)
	params.Set("ImageLocation", up.bucket+"/"+key)
	return in.register(ctx, params)
}

// described is what a registration says of the image, however its data is kept.
func (in *installer) described(name string, kind bundle.Kind, ids installed) url.Values {
	params := url.Values{"Name": {name}, "Architecture": {in.parcel.arch}, "Description": {in.parcel.description}}
	if in.parcel.description == "" {
		params.Del("Description")
	}
	if kind == bundle.Machine {
		params.Set("VirtualizationType", string(in.parcel.virtualization))
		if in.parcel.virtualization == cloud.HVM && in.parcel.boot != "" {
			params.Set("BootMode", string(in.parcel.boot))
		}
	}
	if ids.Kernel != "" {
		params.Set("KernelId", ids.Kernel)
	}
	if ids.Ramdisk != "" {
		params.Set("RamdiskId", ids.Ramdisk)
	}
	return params
}

func (in *installer) register(ctx context.Context, params url.Values) (string, error) {
	var reply struct {
		ImageID string `xml:"imageId"`
	}
	err := in.client.Query(ctx, "RegisterImage", params, &reply)
	return reply.ImageID, err
}

// find an image of one's own that is registered under the name; "" is none. One that was made of something else, which
// its location or its description of the data tells, is in the way.
func (in *installer) find(ctx context.Context, name, data string) (string, error) {
	var reply struct {
		Images []struct {
			ID       string `xml:"imageId"`
			Location string `xml:"imageLocation"`
			Snapshot string `xml:"blockDeviceMapping>item>ebs>snapshotId"`
		} `xml:"imagesSet>item"`
	}
	err := in.client.Query(ctx, "DescribeImages", url.Values{
		"Owner.1": {"self"}, "Filter.1.Name": {"name"}, "Filter.1.Value.1": {name},
	}, &reply)
	if err != nil || len(reply.Images) == 0 {
		return "", err
	}
	found := reply.Images[0]
	if in.parcel.registered != "" && name == in.parcel.registered && found.Location != data && found.Snapshot != data {
		return "", fmt.Errorf("an image named %s is registered already, %s, and was made of something else: choose another --name, or deregister it", name, found.ID)
	}
	return found.ID, nil
}

// share the images with everybody.
func (in *installer) share(ctx context.Context, ids installed) error {
	for _, id := range []string{ids.Kernel, ids.Ramdisk, ids.Image} {
		if id == "" {
			continue
		}
		var reply struct {
			Return string `xml:"return"`
		}
		err := in.client.Query(ctx, "ModifyImageAttribute", url.Values{"ImageId": {id}, "LaunchPermission.Add.1.Group": {"all"}}, &reply)
		if err != nil {
			return err
		}
		if done, err := strconv.ParseBool(reply.Return); err != nil || !done {
			return fmt.Errorf("sharing %s: the cloud answered %q", id, reply.Return)
		}
	}
	return nil
}
