package ec2

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"path"
	"slices"
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// Long work on bytes (cloud.Task): an action here checks all that can be known at
// once, and wishes for the task; what comes of it is told by the actions that
// describe it.

// newTask with a fresh id, to be filled in by its action and added by add. It is
// done by the node given, or by any.
func (c *call) newTask(kind cloud.TaskKind, node cloud.NodeID) (*cloud.Task, error) {
	id, err := c.newID(string(kind), has(c.tx, state.Tasks))
	if err != nil {
		return nil, err
	}
	if node == "" {
		for n := range state.Nodes.All(c.tx) {
			node = n.ID
			break
		}
	}
	if node == "" {
		return nil, wire.Errorf("InsufficientCapacity", "No node of this cloud is there to do the work; ask whoever runs it")
	}
	return &cloud.Task{ID: cloud.TaskID(id), Kind: kind, Account: c.account(), Node: node, CreatedAt: c.Now(), Params: map[string]string{}}, nil
}

// DefaultMaxTasks is how many unfinished tasks an account may have where Options
// don't say: EC2's figure for imports.
const DefaultMaxTasks = 20

// wish for the task, if the account has not too many.
func (c *call) wish(t *cloud.Task) error {
	if n := state.AddTask(c.tx, *t); n > int64(c.MaxTasks) {
		return wire.Errorf("ResourceCountLimitExceeded",
			"The account has %d unfinished tasks (imports, exports, bundlings and copies), the most that it may have at once: wait for one, or cancel one", n-1)
	}
	return nil
}

// add the task, with the tags that were asked for, and remember it for its
// client token.
func (c *call) add(t *cloud.Task, resource string) error {
	if err := c.wish(t); err != nil {
		return err
	}
	c.made = string(t.ID)
	return c.tagNew(resource, string(t.ID))
}

// seenOf a task is what was last observed of it.
func (c *call) seenOf(t *cloud.Task) cloud.TaskObservation {
	if o, _, ok := state.TaskObservations.Get(c.read, t.ID); ok {
		return *o
	}
	return cloud.TaskObservation{}
}

// task of the caller's of one of the kinds; code is EC2's family of errors for
// its ids.
func (c *call) task(id, code string, kinds ...cloud.TaskKind) (*cloud.Task, error) {
	for _, k := range kinds {
		parsed, ok := taskID(id, k)
		if !ok {
			continue
		}
		if t, _, found := state.Tasks.Get(c.read, parsed); found && c.owned(t.Account) {
			return t, nil
		}
		return nil, wire.Errorf(code+".NotFound", "The task ID '%s' does not exist", wire.Shorten(id))
	}
	return nil, malformed(code, id, string(kinds[0]))
}

// taskID brings a task's id to the form that it is stored in.
func taskID(id string, k cloud.TaskKind) (cloud.TaskID, bool) {
	digits, ok := strings.CutPrefix(strings.ToLower(id), string(k)+"-")
	if !ok {
		return "", false
	}
	parsed, ok := cloud.ParseID("i-"+digits, "i")
	return cloud.TaskID(string(k) + strings.TrimPrefix(parsed, "i")), ok
}

// tasks of the caller's of the kinds, those named or all, in the order of their
// ids.
func (c *call) tasks(ids []string, code string, kinds ...cloud.TaskKind) (iter.Seq[*cloud.Task], error) {
	if len(ids) == 0 {
		return func(yield func(*cloud.Task) bool) {
			for t := range state.TasksByAccount.By(c.read, c.account()) {
				if slices.Contains(kinds, t.Kind) && !yield(t) {
					return
				}
			}
		}, nil
	}
	var named []*cloud.Task
	for _, id := range ids {
		t, err := c.task(id, code, kinds...)
		if err != nil {
			return nil, err
		}
		named = append(named, t)
	}
	slices.SortFunc(named, func(a, b *cloud.Task) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return slices.Values(slices.Compact(named)), nil
}

// cancel a task of the caller's, and say how it stood before.
func (c *call) cancel(t *cloud.Task, words taskWords) (before, now string, err error) {
	if err := c.may(c.taskARN(t)); err != nil {
		return "", "", err
	}
	before = words.of(t, c.seenOf(t))
	if !t.FinishedAt.IsZero() {
		return "", "", wire.Errorf("IncorrectState", "The task %s is %s, and can't be cancelled any more", t.ID, before)
	}
	state.CancelTask(c.tx, *t, c.Now())
	return before, words.cancelling, nil
}

func (c *call) taskARN(t *cloud.Task) string {
	return c.arn(t.Account, map[cloud.TaskKind]string{
		cloud.ImportImage: "import-image-task", cloud.ImportSnapshot: "import-snapshot-task", cloud.ExportImage: "export-image-task",
		cloud.BundleInstance: "bundle-task", cloud.ImportVolume: "conversion-task", cloud.ImportInstance: "conversion-task",
	}[t.Kind], string(t.ID))
}

// taskWords are what an action calls the states of its tasks.
type taskWords struct{ waiting, active, cancelling, cancelled, failed, done string }

func (w taskWords) of(t *cloud.Task, seen cloud.TaskObservation) string {
	switch over := !t.FinishedAt.IsZero(); {
	case over && !t.CancelledAt.IsZero() && t.Failed.Message != "":
		return w.cancelled
	case over && t.Failed.Message != "":
		return w.failed
	case over:
		return w.done
	case !t.CancelledAt.IsZero():
		return w.cancelling
	case seen.Phase == "":
		return w.waiting
	}
	return w.active
}

// userBucket names an object in a request.
type userBucket struct {
	S3Bucket string
	S3Key    string
}

type userBucketReply struct {
	S3Bucket string `xml:"s3Bucket,omitempty"`
	S3Key    string `xml:"s3Key,omitempty"`
}

func bucketReply(f cloud.DiskFile) *userBucketReply {
	if f.Bucket == "" {
		return nil
	}
	return &userBucketReply{f.Bucket, f.Key}
}

// diskFormats are those that are imported; the case doesn't count.
var diskFormats = []string{"RAW", "QCOW2", "VMDK", "VHD", "VHDX", "OVA"}

func checkFormat(name, format string) (string, error) {
	format = strings.ToUpper(format)
	if format != "" && !slices.Contains(diskFormats, format) {
		return "", wire.InvalidParameterValue(name, format, "Expecting one of %s.", strings.Join(diskFormats, ", "))
	}
	return format, nil
}

// diskSource checks where a disk file comes from: an object that the caller may
// read, also written s3://bucket/key, or a URL.
func (c *call) diskSource(name, address string, b *userBucket) (cloud.DiskFile, error) {
	if rest, ok := strings.CutPrefix(address, "s3://"); ok && b == nil {
		bucket, key, _ := strings.Cut(rest, "/")
		b, address = &userBucket{bucket, key}, ""
	}
	switch {
	case address != "" && b != nil:
		return cloud.DiskFile{}, wire.InvalidParameterCombination("%s has a Url and a UserBucket; expecting one of them", name)
	case b != nil && (b.S3Bucket == "" || b.S3Key == ""):
		return cloud.DiskFile{}, wire.Errorf("MissingParameter", "The request must contain the parameters %s.UserBucket.S3Bucket and %s.UserBucket.S3Key", name, name)
	case b != nil:
		size, err := c.Objects.StatObject(c.ctx, c.principal, b.S3Bucket, b.S3Key)
		return cloud.DiskFile{Bucket: b.S3Bucket, Key: b.S3Key, Size: size}, objectError(name+".UserBucket", b.S3Bucket, b.S3Key, err)
	case address == "":
		return cloud.DiskFile{}, wire.Errorf("MissingParameter", "The request must contain the parameter %s.Url or %s.UserBucket", name, name)
	}
	return cloud.DiskFile{URL: address}, checkURL(name+".Url", address)
}

// checkURL takes http and https. What it leads to is the node's to find out, which
// follows no way into the host's own network.
func checkURL(name, address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.ContainsFunc(address, unprintable) || len(address) > 4096 {
		return wire.InvalidParameterValue(name, address, "Expecting an address that begins with https://, http:// or s3://.")
	}
	return nil
}

// shownURL is an address without what lets anybody have what is there: a presigned
// one's signature, or a password.
func shownURL(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// objectError says what is wrong with an object, in EC2's words.
func objectError(name, bucket, key string, err error) error {
	at := wire.Shorten(path.Join(bucket, key))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return wire.InvalidParameterValue(name, at, "There is no such object or bucket.")
	case errors.Is(err, fs.ErrPermission):
		return wire.InvalidParameterValue(name, at, "It may not be used by this account.")
	case err != nil:
		return fmt.Errorf("%s %s: %w", name, at, err)
	}
	return nil
}

// percent as the tasks' replies have it; none when it is over.
func percent(t *cloud.Task, seen cloud.TaskObservation) string {
	if !t.FinishedAt.IsZero() {
		return ""
	}
	p, _ := t.Seen(seen)
	return fmt.Sprint(p)
}
