package euca

import (
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"mallee/bundle"
)

// retries that --retry asks for.
const retries = 5

// uploading is where a bundle goes, whose bucket is made where there is none.
func (s *session) uploading() (*upload, error) {
	bucket, folder := bucketAndFolder(s.text("bucket"))
	if err := s.together("upload-policy", "upload-policy-file"); err != nil {
		return nil, err
	}
	form, err := s.uploadForm()
	if err != nil {
		return nil, err
	}
	client, err := s.cloud()
	if err != nil {
		return nil, err
	}
	u := newUpload(client, bucket, folder)
	u.acl, u.form = cmp.Or(s.text("acl"), execRead), form
	if s.given("retry") {
		u.retries = retries
	}
	if form != nil {
		return u, nil // it lets nothing else be done
	}
	there, err := client.HeadBucket(s.ctx, bucket)
	if err == nil && !there {
		err = client.CreateBucketIn(s.ctx, bucket, s.text("location"))
	}
	return u, err
}

// bucketAndFolder of BUCKET[/PREFIX]; the folder is "" or ends with a slash.
func bucketAndFolder(place string) (bucket, folder string) {
	bucket, folder, _ = strings.Cut(place, "/")
	if folder = strings.Trim(folder, "/"); folder != "" {
		folder += "/"
	}
	return bucket, folder
}

func uploadBundle(s *session) error {
	path := s.text("manifest")
	m, text, err := bundle.ReadManifestFile(path)
	if err != nil {
		return err
	}
	first, err := strconv.Atoi(cmp.Or(s.text("part"), "0"))
	if err != nil || first >= len(m.Parts) {
		return fmt.Errorf("argument --part: the bundle's parts are 0 to %d", len(m.Parts)-1)
	}
	root, err := os.OpenRoot(cmp.Or(s.text("directory"), filepath.Dir(path)))
	if err != nil {
		return fmt.Errorf("open the bundle's folder: %w", err)
	}
	defer root.Close()
	u, err := s.uploading()
	if err != nil {
		return err
	}
	sent, err := s.sendParts(u, root, m, first)
	if err != nil {
		return err
	}
	name := filepath.Base(path)
	if s.given("skipmanifest") {
		return s.show(sent, nil)
	}
	sent.Manifest = u.bucket + "/" + u.folder + name
	if err := u.bytes(s.ctx, u.folder+name, text); err != nil {
		return err
	}
	return s.show(sent, func() { s.line("Uploaded " + sent.Manifest) })
}

// sendParts from the first on. One that can't be sent says how to go on.
func (s *session) sendParts(u *upload, root *os.Root, m *bundle.Manifest, first int) (bundled, error) {
	sent := tell(m, "", func(name string) string { return u.bucket + "/" + u.folder + name })
	sent.Parts = sent.Parts[first:]
	show := s.progress()
	defer show.end()
	for n, part := range m.Parts[first:] {
		show.show("uploading "+m.Name, int64(n), int64(len(sent.Parts)))
		if err := u.file(s.ctx, root, part); err != nil {
			return sent, fmt.Errorf("part %d (go on with it by --part %d): %w", part.Index, part.Index, err)
		}
	}
	show.show("uploading "+m.Name, int64(len(sent.Parts)), int64(len(sent.Parts)))
	return sent, nil
}

// file of a part becomes an object, if it is the one that the manifest lists.
func (u *upload) file(ctx context.Context, root *os.Root, part bundle.Part) error {
	f, err := bundle.OpenPart(root, part)
	if err != nil {
		return err
	}
	defer f.Close()
	listed, sum := sha1.New(), sha256.New()
	size, err := io.Copy(io.MultiWriter(listed, sum), &interrupted{ctx, f})
	if err != nil {
		return fmt.Errorf("read %s: %w", part.Name, err)
	}
	if [sha1.Size]byte(listed.Sum(nil)) != part.Digest {
		return &bundle.PartError{Index: part.Index, Name: part.Name, Err: bundle.ErrPartDigest}
	}
	return u.object(ctx, u.folder+part.Name, f, size, hex.EncodeToString(sum.Sum(nil)))
}

// interrupted is a reader that ends with its context.
type interrupted struct {
	ctx context.Context
	io.Reader
}

func (r *interrupted) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

func bundleAndUpload(s *session) error {
	if s.given("preserve-bundle") && s.text("destination") == "" {
		return errors.New("argument --preserve-bundle: only with -d/--destination, which says where")
	}
	sent, err := s.bundleAndUpload()
	if err != nil {
		return err
	}
	return s.show(sent, func() { s.line("Uploaded " + sent.Manifest) })
}

// bundleAndUpload an image: its parts are in memory, or in files where they are
// large or kept.
func (s *session) bundleAndUpload() (bundled, error) {
	job, err := s.bundling()
	if err != nil {
		return bundled{}, err
	}
	defer job.src.Close()
	u, err := s.uploading()
	if err != nil {
		return bundled{}, err
	}
	send := s.stream
	if job.PartSize > maxHeldPart || s.given("preserve-bundle") {
		send = s.byFiles
	}
	m, text, err := send(u, job)
	key := u.folder + job.Prefix + bundle.ManifestSuffix
	if err == nil {
		err = u.bytes(s.ctx, key, text)
	}
	if err = u.end(s.ctx, err); err != nil {
		return bundled{}, err
	}
	at := func(name string) string { return u.bucket + "/" + u.folder + name }
	return tell(m, u.bucket+"/"+key, at), nil
}

// stream the parts as they are made.
func (s *session) stream(u *upload, job *bundling) (*bundle.Manifest, []byte, error) {
	m, text, err := bundle.Write(s.ctx, job.src, job.size, job.watched(s.progress(), "bundling and uploading"), u.part)
	u.running.Wait()
	return m, text, cmp.Or(u.err, err)
}

// byFiles makes the bundle first, and then uploads it.
func (s *session) byFiles(u *upload, job *bundling) (*bundle.Manifest, []byte, error) {
	dir, err := s.text("destination"), error(nil)
	if !s.given("preserve-bundle") {
		if dir, err = os.MkdirTemp(temporaryFolder(), "bundle-"); err != nil {
			return nil, nil, fmt.Errorf("make a folder for the bundle: %w", err)
		}
		defer os.RemoveAll(dir)
	}
	m, path, err := s.writeBundle(job, dir)
	if err != nil {
		return nil, nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	_, err = s.sendParts(u, root, m, 0)
	return m, text, err
}

// installImage is bundle-and-upload, and then register.
func installImage(s *session) error {
	if ec2 := s.text("ec2-url"); ec2 != "" {
		s.access.EC2 = strings.TrimRight(ec2, "/")
	}
	if s.access.EC2 == "" {
		return errors.New("the endpoint of EC2 is not known: set EC2_URL, or name it by --ec2-url")
	}
	sent, err := s.bundleAndUpload()
	if err != nil {
		return err
	}
	s.params = url.Values{"Name": {s.text("name")}, "Architecture": {s.text("arch")}, "ImageLocation": {sent.Manifest}}
	for option, param := range map[string]string{"description": "Description", "virtualization-type": "VirtualizationType", "platform": "Platform"} {
		if s.given(option) {
			s.params.Set(param, s.text(option))
		}
	}
	reply, err := s.call("RegisterImage")
	if err != nil {
		return fmt.Errorf("register %s, where the bundle stays: %w", sent.Manifest, err)
	}
	return s.show(reply, func() { printImageID(s, reply) })
}
