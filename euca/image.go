package euca

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"mallee/bundle"
	"mallee/cloud"
	"mallee/image"
)

// catalogBucket holds the bundles of the images that are installed by name.
const catalogBucket = "mallee-catalog"

// execRead lets the cloud read a bundle, and nobody else.
const execRead = "aws-exec-read"

func imageCommand() *cobra.Command {
	parent := &cobra.Command{Use: "image", Short: "Images of the catalogue"}
	parent.AddCommand(&cobra.Command{
		Use:   "install NAME",
		Short: "Build an image of the catalogue where it isn't built yet, and bundle, upload and register it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return install(cmd, args[0])
		},
	})
	return parent
}

// installed is what an installation prints.
type installed struct {
	Image   string `json:"image"`
	Kernel  string `json:"kernel,omitempty"`
	Ramdisk string `json:"ramdisk,omitempty"`
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

func install(cmd *cobra.Command, name string) error {
	out, err := printerOf(cmd)
	if err != nil {
		return err
	}
	recipe, err := image.FindRecipe(name)
	if err != nil {
		return err
	}
	folder, err := FolderOf(cmd)
	if err != nil {
		return err
	}
	client, vars, err := Connect(folder)
	if err != nil {
		return err
	}
	show := newProgress(cmd.ErrOrStderr())
	defer show.end()
	built, err := image.Build(cmd.Context(), recipe, folder.Path("catalog"), show.show)
	if err != nil {
		return fmt.Errorf("build %s: %w", name, err)
	}
	secrets, err := readSecrets(vars)
	if err != nil {
		return err
	}
	in := installer{client: client, secrets: secrets, recipe: recipe, version: built.Version[:min(len(built.Version), 12)], show: show}
	ids, err := in.all(cmd.Context(), built)
	if err != nil {
		return fmt.Errorf("install %s: %w", name, err)
	}
	show.end()
	return out.print(ids, ids.String())
}

// secrets are what bundles are encrypted for and signed with.
type secrets struct {
	cloud, user *x509.Certificate
	key         *rsa.PrivateKey
}

// readSecrets from the files that eucarc names.
func readSecrets(vars map[string]string) (s secrets, err error) {
	if s.cloud, err = readCertificate(vars["EUCALYPTUS_CERT"]); err != nil {
		return s, err
	}
	if s.user, err = readCertificate(vars["EC2_CERT"]); err != nil {
		return s, err
	}
	block, err := readPEM(vars["EC2_PRIVATE_KEY"])
	if err != nil {
		return s, err
	}
	key, err := x509.ParsePKCS8PrivateKey(block)
	if err != nil {
		return s, fmt.Errorf("private key %s: %w", vars["EC2_PRIVATE_KEY"], err)
	}
	var ok bool
	if s.key, ok = key.(*rsa.PrivateKey); !ok {
		return s, fmt.Errorf("private key %s is not an RSA key", vars["EC2_PRIVATE_KEY"])
	}
	return s, nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	block, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(block)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", path, err)
	}
	return c, nil
}

func readPEM(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s is not a PEM file", path)
	}
	return block.Bytes, nil
}

// installer brings the files of one image into the cloud.
type installer struct {
	client  *Client
	secrets secrets
	recipe  image.Recipe
	version string
	show    *progress
}

// all files of the image: a trio's machine image names its kernel and ramdisk.
func (in *installer) all(ctx context.Context, built image.Artifacts) (ids installed, err error) {
	if err := in.client.CreateBucket(ctx, catalogBucket); err != nil {
		return ids, err
	}
	if in.recipe.Virtualization == cloud.HVM {
		ids.Image, err = in.one(ctx, bundle.Machine, built.Disk, in.recipe.Name, ids)
		return ids, err
	}
	if ids.Kernel, err = in.one(ctx, bundle.Kernel, built.Kernel, in.recipe.Name+"-kernel", ids); err != nil {
		return ids, err
	}
	if ids.Ramdisk, err = in.one(ctx, bundle.Ramdisk, built.Ramdisk, in.recipe.Name+"-ramdisk", ids); err != nil {
		return ids, err
	}
	ids.Image, err = in.one(ctx, bundle.Machine, built.Root, in.recipe.Name, ids)
	return ids, err
}

// one file: bundled straight into Walrus, then registered, under a name that
// says which build it is. What is registered already is not done again.
func (in *installer) one(ctx context.Context, kind bundle.Kind, file, name string, ids installed) (string, error) {
	registered := name + "-" + in.version
	if id, err := in.find(ctx, registered); id != "" || err != nil {
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
	up := upload{client: in.client, bucket: catalogBucket, folder: registered + "/"}
	_, manifest, err := bundle.Write(ctx, src, info.Size(), bundle.Options{
		Prefix: name, Account: in.client.Account, Kind: kind, Architecture: in.recipe.Architecture,
		KernelID: ids.Kernel, RamdiskID: ids.Ramdisk,
		CloudCert: in.secrets.cloud, UserCert: in.secrets.user, UserKey: in.secrets.key,
		Progress: func(done, total int64) { in.show.show("bundle and upload "+name, done, total) },
	}, up.part)
	if err != nil {
		return "", err
	}
	key := up.folder + name + ".manifest.xml"
	if err := in.client.PutObject(ctx, up.bucket, key, execRead, manifest); err != nil {
		return "", err
	}
	in.show.show("register "+name, 0, 0)
	return in.register(ctx, registered, up.bucket+"/"+key, kind, ids)
}

func (in *installer) register(ctx context.Context, name, location string, kind bundle.Kind, ids installed) (string, error) {
	params := url.Values{
		"Name": {name}, "ImageLocation": {location}, "Architecture": {in.recipe.Architecture},
		"Description": {in.recipe.Description},
	}
	if kind == bundle.Machine {
		params.Set("VirtualizationType", string(in.recipe.Virtualization))
	}
	if ids.Kernel != "" {
		params.Set("KernelId", ids.Kernel)
		params.Set("RamdiskId", ids.Ramdisk)
	}
	var reply struct {
		ImageID string `xml:"imageId"`
	}
	err := in.client.Query(ctx, "RegisterImage", params, &reply)
	return reply.ImageID, err
}

// find an image of one's own that is registered under the name; "" is none.
func (in *installer) find(ctx context.Context, name string) (string, error) {
	var reply struct {
		IDs []string `xml:"imagesSet>item>imageId"`
	}
	err := in.client.Query(ctx, "DescribeImages", url.Values{
		"Owner.1": {"self"}, "Filter.1.Name": {"name"}, "Filter.1.Value.1": {name},
	}, &reply)
	if err != nil || len(reply.IDs) == 0 {
		return "", err
	}
	return reply.IDs[0], nil
}
