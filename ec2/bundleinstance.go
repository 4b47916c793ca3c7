package ec2

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

var bundleWords = taskWords{"pending", "bundling", "cancelling", "failed", "failed", "complete"}

// maxPolicy is how long an upload policy may be, in base64 (Eucalyptus's figure).
const maxPolicy = 4096

type bundleInstanceInput struct {
	common
	InstanceID string `wire:"InstanceId,required"`
	Storage    struct {
		S3 bundleStorage
	}
}

type bundleStorage struct {
	AccessKey             string `wire:"AWSAccessKeyId"`
	Bucket                string
	Prefix                string
	UploadPolicy          string
	UploadPolicySignature string
}

type bundleTaskReply struct {
	Task bundleTask `xml:"bundleInstanceTask"`
}

type bundleTask struct {
	ID       string           `xml:"bundleId"`
	Instance string           `xml:"instanceId"`
	Started  *wire.Time       `xml:"startTime"`
	Updated  *wire.Time       `xml:"updateTime"`
	State    string           `xml:"state"`
	Progress string           `xml:"progress"`
	Storage  bundleTaskTarget `xml:"storage"`
	Error    *bundleTaskError `xml:"error"`
}

type bundleTaskTarget struct {
	S3 struct {
		Bucket    string `xml:"bucket"`
		Prefix    string `xml:"prefix"`
		AccessKey string `xml:"awsAccessKeyId,omitempty"`
	} `xml:"S3"`
}

type bundleTaskError struct {
	Code    string `xml:"code"`
	Message string `xml:"message"`
}

// prefixForm is what a bundle's files may be called.
var prefixForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$`)

// checkBundling looks at where the bundle shall go, and who says so: whoever has
// the secret that signed the policy, or else the caller.
func checkBundling(c *call, in *bundleInstanceInput) error {
	if err := c.may(c.arn(c.account(), "bundle-task", "*")); err != nil {
		return err
	}
	s := &in.Storage.S3
	switch {
	case s.Bucket == "":
		return wire.MissingParameter("Storage.S3.Bucket")
	case s.Prefix == "":
		return wire.MissingParameter("Storage.S3.Prefix")
	case !prefixForm.MatchString(s.Prefix) || strings.Contains(s.Prefix, "..") || strings.Contains(s.Prefix, "//"):
		return wire.InvalidParameterValue("Storage.S3.Prefix", s.Prefix, "Expecting up to 200 letters, digits and . _ - /, such as my-image.")
	}
	if err := c.checkUploadPolicy(s); err != nil {
		return err
	}
	keys, err := c.Objects.KeysOf(c.ctx, c.principal, s.Bucket, s.Prefix, !in.dry())
	if err != nil {
		return objectError("Storage.S3.Bucket", s.Bucket, "", err)
	}
	if len(keys) > 0 {
		return wire.InvalidParameterValue("Storage.S3.Prefix", s.Prefix, "The bucket %s holds %s already.", s.Bucket, keys[0])
	}
	return nil
}

// uploadPolicy is that of a browser's upload, as S3 documents it: each of its
// conditions has to let the bundle be written, and one has to speak of each field.
type uploadPolicy struct {
	Expiration string
	Conditions []json.RawMessage
}

// checkUploadPolicy that it allows the upload, and that a key of the caller's
// account signed it. Without one the caller's own rights count.
func (c *call) checkUploadPolicy(s *bundleStorage) error {
	if s.UploadPolicy == "" && s.UploadPolicySignature == "" {
		return nil
	}
	bad := func(format string, args ...any) error {
		return wire.InvalidParameterValue("Storage.S3.UploadPolicy", s.UploadPolicy, format, args...)
	}
	if len(s.UploadPolicy) > maxPolicy {
		return bad("It has more than %d characters.", maxPolicy)
	}
	text, err := base64.StdEncoding.DecodeString(s.UploadPolicy)
	if err != nil {
		return bad("It is not base64.")
	}
	p, secret, ok := c.IAM.Principal(s.AccessKey)
	if !ok || p.Account != c.account() {
		return wire.InvalidParameterValue("Storage.S3.AWSAccessKeyId", s.AccessKey, "Expecting an active access key of the account.")
	}
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(s.UploadPolicy))
	signature, err := base64.StdEncoding.DecodeString(s.UploadPolicySignature)
	if err != nil || !hmac.Equal(signature, mac.Sum(nil)) {
		return wire.InvalidParameterValue("Storage.S3.UploadPolicySignature", s.UploadPolicySignature, "It is not the policy's, by the access key %s.", s.AccessKey)
	}
	var policy uploadPolicy
	if err := json.Unmarshal(text, &policy); err != nil {
		return bad("It is not the JSON of a policy.")
	}
	return policy.allows(s, c.Now(), bad)
}

func (p *uploadPolicy) allows(s *bundleStorage, now time.Time, bad func(string, ...any) error) error {
	until, err := time.Parse(time.RFC3339, p.Expiration)
	if err != nil {
		return bad("Its expiration %s is not a time.", wire.Shorten(p.Expiration))
	}
	if !until.After(now) {
		return bad("It expired at %s.", p.Expiration)
	}
	demanded := map[string]bool{}
	for _, raw := range p.Conditions {
		condition, err := readCondition(raw)
		if err != nil {
			return bad("Its condition %s can't be read: %v.", wire.Shorten(string(raw)), err)
		}
		if !condition.allows(s) {
			return bad("Its condition %s does not allow to write %s with the ACL ec2-bundle-read into the bucket %s.", wire.Shorten(string(raw)), s.Prefix+".*", s.Bucket)
		}
		demanded[condition.field] = true
	}
	for _, field := range []string{"bucket", "acl", "key"} {
		if !demanded[field] {
			return bad("It says nothing of the %s.", field)
		}
	}
	return nil
}

// condition demands of a field of an upload that it is, or begins with, a value.
type condition struct {
	field, value string
	begins       bool
}

// readCondition reads {"acl": "private"}, ["eq", "$acl", "private"] or
// ["starts-with", "$key", "images/"].
func readCondition(raw json.RawMessage) (condition, error) {
	var pair map[string]string
	if json.Unmarshal(raw, &pair) == nil && len(pair) == 1 {
		for field, value := range pair {
			return condition{strings.ToLower(field), value, false}, nil
		}
	}
	var list []string
	if json.Unmarshal(raw, &list) == nil && len(list) == 3 && strings.HasPrefix(list[1], "$") {
		operator, field := strings.ToLower(list[0]), strings.ToLower(list[1][1:])
		if operator == "eq" || operator == "starts-with" {
			return condition{field, list[2], operator == "starts-with"}, nil
		}
	}
	return condition{}, errors.New("expecting one of bucket, acl and key, which is equal to a text or starts with one")
}

// allows says whether all that a bundling writes is as demanded: parts and manifest,
// whose keys begin with the prefix, under either name of the one ACL.
func (c condition) allows(s *bundleStorage) bool {
	is := func(text string) bool { return text == c.value || c.begins && strings.HasPrefix(text, c.value) }
	switch c.field {
	case "bucket":
		return is(s.Bucket)
	case "acl":
		return is("ec2-bundle-read") || is("aws-exec-read")
	case "key":
		return c.begins && strings.HasPrefix(s.Prefix, c.value)
	}
	return false // S3's rule: a field that the upload doesn't have
}

// bundleInstance makes a bundle of a running instance's root disk. Its guest is
// shut down for an instant.
func bundleInstance(c *call, in *bundleInstanceInput) (*bundleTaskReply, error) {
	i, err := c.instance(in.InstanceID)
	if err != nil {
		return nil, err
	}
	if err := c.may(c.arn(i.Account, "instance", string(i.ID))); err != nil {
		return nil, err
	}
	if i.EBS {
		return nil, wire.Errorf("InvalidParameterValue", "The instance %s has an ebs root device, which CreateImage makes an image of; BundleInstance is for instance-store", i.ID)
	}
	if s := c.stateOf(i); s != cloud.Running {
		return nil, wire.Errorf("IncorrectInstanceState", "The instance %s is %s; only a running one can be bundled", i.ID, s)
	}
	for t := range state.TasksToDo.By(c.read, i.Node) {
		if t.Kind == cloud.BundleInstance && t.Instance == i.ID {
			return nil, wire.Errorf("BundlingInProgress", "The instance %s is being bundled already, by task %s", i.ID, t.ID)
		}
	}
	t, err := c.newTask(cloud.BundleInstance, i.Node)
	if err != nil {
		return nil, err
	}
	s := &in.Storage.S3
	t.Instance, t.Target = i.ID, &cloud.DiskFile{Bucket: s.Bucket, Key: s.Prefix}
	t.Params = map[string]string{cloud.ParamArchitecture: i.Architecture, cloud.ParamAccessKey: s.AccessKey}
	if i.Kernel != nil && i.Ramdisk != nil {
		t.Params[cloud.ParamKernel], t.Params[cloud.ParamRamdisk] = string(i.Kernel.ID), string(i.Ramdisk.ID)
	}
	t.Ref = &cloud.ImageRef{ID: i.Image.ID, Size: i.Image.Size} // how much of the disk is the image
	if err := c.add(t, "bundle-task"); err != nil {
		return nil, err
	}
	return &bundleTaskReply{c.bundleTask(t)}, nil
}

func (c *call) bundleTask(t *cloud.Task) bundleTask {
	seen := c.seenOf(t)
	progress, message := t.Seen(seen)
	out := bundleTask{
		ID: string(t.ID), Instance: string(t.Instance), Started: wire.At(t.CreatedAt), Updated: wire.At(t.CreatedAt),
		State: bundleWords.of(t, seen), Progress: fmt.Sprintf("%d%%", progress),
	}
	for _, at := range []time.Time{seen.At, t.FinishedAt} {
		if !at.IsZero() {
			out.Updated = wire.At(at)
		}
	}
	out.Storage.S3.Bucket, out.Storage.S3.Prefix, out.Storage.S3.AccessKey = t.Target.Bucket, t.Target.Key, t.Params[cloud.ParamAccessKey]
	if t.Failed.Message != "" {
		out.Error = &bundleTaskError{t.Failed.Code, message}
	}
	return out
}

type describeBundleInput struct {
	common
	filtered
	BundleID []string `wire:"BundleId,max=1000"`
}

type describeBundleReply struct {
	Tasks []bundleTask `xml:"bundleInstanceTasksSet>item"`
}

var bundleKind = kind[*cloud.Task]{
	key: func(t *cloud.Task) string { return string(t.ID) },
	fields: fields[*cloud.Task]{
		"bundle-id":     text(func(t *cloud.Task) string { return string(t.ID) }),
		"error-code":    text(func(t *cloud.Task) string { return t.Failed.Code }),
		"error-message": text(func(t *cloud.Task) string { return t.Failed.Message }),
		"instance-id":   text(func(t *cloud.Task) string { return string(t.Instance) }),
		"progress":      func(c *call, t *cloud.Task) []string { return one(c.bundleTask(t).Progress) },
		"s3-bucket":     text(func(t *cloud.Task) string { return t.Target.Bucket }),
		"s3-prefix":     text(func(t *cloud.Task) string { return t.Target.Key }),
		"start-time":    text(func(t *cloud.Task) string { return wireTime(t.CreatedAt) }),
		"state":         func(c *call, t *cloud.Task) []string { return one(c.bundleTask(t).State) },
		"update-time":   func(c *call, t *cloud.Task) []string { return one(wireTime(c.bundleTask(t).Updated.Time)) },
	},
}

// wireTime is a time as replies have it, for filters.
func wireTime(t time.Time) string {
	text, err := wire.Time{Time: t}.MarshalText()
	if err != nil {
		return ""
	}
	return string(text)
}

func describeBundleTasks(c *call, in *describeBundleInput) (*describeBundleReply, error) {
	list, err := c.tasks(in.BundleID, "InvalidBundleID", cloud.BundleInstance)
	if err != nil {
		return nil, err
	}
	chosen, err := bundleKind.all(c, in.filtered, list)
	if err != nil {
		return nil, err
	}
	out := &describeBundleReply{}
	for _, t := range chosen {
		out.Tasks = append(out.Tasks, c.bundleTask(t))
	}
	return out, nil
}

type cancelBundleInput struct {
	common
	BundleID string `wire:"BundleId,required"`
}

// cancelBundleTask gives a bundling up; what it wrote is removed.
func cancelBundleTask(c *call, in *cancelBundleInput) (*bundleTaskReply, error) {
	t, err := c.task(in.BundleID, "InvalidBundleID", cloud.BundleInstance)
	if err != nil {
		return nil, err
	}
	if _, _, err := c.cancel(t, bundleWords); err != nil {
		return nil, err
	}
	if now, _, ok := state.Tasks.Get(c.read, t.ID); ok {
		t = now
	}
	return &bundleTaskReply{c.bundleTask(t)}, nil
}
