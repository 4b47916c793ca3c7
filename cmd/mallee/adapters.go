package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net/netip"
	"net/url"
	"path"

	"mallee/cloud"
	"mallee/ec2"
	"mallee/euca"
	"mallee/iam"
	"mallee/image"
	"mallee/metadata"
	"mallee/node"
	"mallee/peer"
	"mallee/snapshot"
	"mallee/state"
	"mallee/walrus"
)

// keyring puts iam in charge of who may use Walrus.
type keyring struct{ iam *iam.IAM }

func (k keyring) Lookup(accessKey string) (walrus.Account, bool) {
	p, secret, token, ok := k.iam.Holder(accessKey)
	return walrus.Account{ID: string(p.Account), Secret: secret, SessionToken: token, Admin: p.System}, ok
}

func (k keyring) Exists(account string) bool {
	_, _, ok := state.Accounts.Get(k.iam.Store.View(), cloud.AccountID(account))
	return ok
}

// bound says whether policies bind the holder of a key: all but most admins.
func (k keyring) bound(accessKey string) bool {
	p, _, _, ok := k.iam.Holder(accessKey)
	return ok && k.iam.Bound(p)
}

func (k keyring) may(a walrus.Ask) bool {
	p, _, _, ok := k.iam.Holder(a.AccessKey)
	at, _ := netip.ParseAddr(a.Source)
	p.Around = &iam.Around{Source: at}
	return ok && k.iam.Authorize(p, a.Action, a.Resource) == nil
}

// objects is what EC2 reads of Walrus, with the rights of who asks.
type objects struct{ *walrus.Walrus }

// permit is fs.ErrPermission where somebody may not do something with what is
// named.
func permit(may bool, err error, do, bucket, key string) error {
	if err == nil && !may {
		err = fmt.Errorf("%s %s: %w", do, path.Join(bucket, key), fs.ErrPermission)
	}
	return err
}

// StatObject has the rights of the principal alone, since the bytes of what it may
// read so become its own: those that objects give the cloud are not for that.
func (o objects) StatObject(ctx context.Context, p iam.Principal, bucket, key string) (int64, error) {
	may, err := o.Granted(ctx, string(p.Account), bucket, key)
	if err := permit(may || p.System, err, "read", bucket, key); err != nil {
		return 0, err
	}
	object, err := o.Stat(ctx, bucket, key)
	return object.Size, err
}

func (o objects) KeysOf(ctx context.Context, p iam.Principal, bucket, prefix string, create bool) ([]string, error) {
	may, err := o.Writable(ctx, string(p.Account), bucket)
	if create && errors.Is(err, fs.ErrNotExist) {
		may, err = true, o.MakeBucket(ctx, string(p.Account), bucket)
	}
	if err := permit(may, err, "write into", bucket, ""); err != nil {
		return nil, err
	}
	return o.Keys(ctx, bucket, prefix, 10)
}

func (o objects) OwnBucket(ctx context.Context, p iam.Principal, bucket string) error {
	err := o.MakeBucket(ctx, string(p.Account), bucket)
	if errors.Is(err, walrus.ErrExists) {
		err = fmt.Errorf("%w: %w", err, fs.ErrPermission)
	}
	return err
}

func (o objects) ReadObject(ctx context.Context, p iam.Principal, bucket, key string, limit int64) ([]byte, error) {
	may, err := o.Readable(ctx, string(p.Account), bucket, key)
	if err := permit(may || p.System, err, "read", bucket, key); err != nil {
		return nil, err
	}
	body, size, err := o.Open(ctx, bucket, key)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if size > limit {
		return nil, fmt.Errorf("read %s/%s: %w: %d bytes", bucket, key, ec2.ErrObjectTooLarge, size)
	}
	return io.ReadAll(io.LimitReader(body, limit))
}

// taskObjects is what tasks read and write of Walrus. A task's account has the
// rights that it has then, not those that it had when the task was made.
type taskObjects struct {
	*walrus.Walrus
	store *state.Store
}

func (o taskObjects) OpenFor(ctx context.Context, id cloud.AccountID, bucket, key string) (io.ReadCloser, int64, error) {
	account, _, there := state.Accounts.Get(o.store.View(), id)
	may, err := o.Granted(ctx, string(id), bucket, key)
	may = there && (may || account.Alias == cloud.SystemAccount)
	if err := permit(may, err, "read", bucket, key); err != nil {
		return nil, 0, err
	}
	return o.Open(ctx, bucket, key)
}

func (o taskObjects) PutFor(ctx context.Context, account cloud.AccountID, bucket, key, acl string, body io.Reader, size int64) error {
	may, err := o.Writable(ctx, string(account), bucket)
	if err := permit(may, err, "write", bucket, key); err != nil {
		return err
	}
	return o.Put(ctx, bucket, key, acl, body, size)
}

func (o taskObjects) DeleteFor(ctx context.Context, account cloud.AccountID, bucket, key string) error {
	may, err := o.Writable(ctx, string(account), bucket)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !may {
		return nil
	}
	if err != nil {
		return err
	}
	return o.Delete(ctx, bucket, key)
}

// sweeper gives back what no content in the state needs.
type sweeper struct {
	store *snapshot.Store
	log   *slog.Logger
}

func (s sweeper) Sweep(ctx context.Context, live iter.Seq[cloud.Content]) error {
	swept, err := s.store.Sweep(ctx, func(yield func(string, error) bool) {
		for c := range live {
			if !yield(c.Manifest, nil) {
				return
			}
		}
	})
	if swept.Blocks+swept.Pages+swept.Manifests > 0 {
		s.log.Info("swept the contents of snapshots", "manifests", swept.Manifests, "blocks", swept.Blocks, "bytes", swept.Bytes)
	}
	return err
}

// guests tell the metadata service who asks, by the port the question came from.
type guests struct{ node **node.Node }

func (g guests) lookup(_ context.Context, port string) (metadata.Instance, bool) {
	i, ok := (*g.node).Assigned(cloud.InstanceID(port))
	return metadata.Instance{Instance: i, Region: iam.Region, Subnet: subnet, Volumes: (*g.node).Attached(i.ID)}, ok
}

// reach is where downloads that users ask for may go: to public addresses, and to
// the cloud's own door, where presigned addresses of its object store lead.
func reach(endpoint string) image.Reach {
	u, err := url.Parse(endpoint)
	if err != nil {
		return image.PublicOnly
	}
	own, err := netip.ParseAddrPort(u.Host)
	return func(at netip.AddrPort) error {
		if err == nil && at.Port() == own.Port() && at.Addr().Unmap() == own.Addr().Unmap() {
			return nil
		}
		return image.PublicOnly(at)
	}
}

// peers are the clouds that the folder names.
type peers struct{ euca.Peers }

func (p peers) Image(ctx context.Context, region, id string) (*peer.Image, error) {
	c, err := p.Get(region)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ec2.ErrNoPeer
	}
	if err != nil {
		return nil, err
	}
	return c.Image(ctx, id)
}

func (p peers) Blocks(ctx context.Context, region, snapshot string, passage peer.Passage) error {
	c, err := p.Get(region)
	if err != nil {
		return err
	}
	return c.Blocks(ctx, snapshot, passage)
}

// roots are the disks of this node's instances.
type roots struct{ node **node.Node }

func (r roots) StoreRoot(ctx context.Context, name string, id cloud.InstanceID) (cloud.Content, error) {
	return (*r.node).StoreRoot(ctx, name, id)
}
