package euca

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// taskCommands start, show and cancel what the cloud does in the background.
func taskCommands() []command {
	return []command{
		{
			name: "bundle-instance", short: "Bundle the disk of an instance-store instance",
			takes: "INSTANCE", as: "InstanceId",
			options: []option{
				text("b,bucket", "BUCKET", "where the bundle goes").to("Storage.S3.Bucket").required(),
				text("p,prefix", "PREFIX", "how its objects' names begin").to("Storage.S3.Prefix").required(),
				text("o,owner-akid,user-access-key", "KEY_ID", "access key of the bucket's owner (default one's own)").to("Storage.S3.AWSAccessKeyId"),
				text("c,policy", "POLICY", "upload policy in base64 (default one is made)").to("Storage.S3.UploadPolicy"),
				text("s,policy-signature", "SIGNATURE", "the policy's signature").to("Storage.S3.UploadPolicySignature"),
				text("w,owner-sak,user-secret-key", "KEY", "secret of the owner's access key (default one's own)"),
				whole("x,expires", "HOURS", "how long the policy that is made is good for (default 24)"),
			},
			run: asking(uploadPolicy, "BundleInstance", func(s *session, reply *element) { printBundle(s, reply.at("bundleInstanceTask")) }),
		},
		{
			name: "describe-bundle-tasks", short: "Show how bundling instances goes on",
			takes: "[TASK...]", as: "BundleId", filters: true,
			run: calling("DescribeBundleTasks", func(s *session, reply *element) {
				for task := range reply.each("bundleInstanceTasksSet") {
					printBundle(s, task)
				}
			}),
		},
		{
			name: "cancel-bundle-task", short: "Cancel the bundling of an instance",
			takes: "TASK", as: "BundleId",
			run: calling("CancelBundleTask", func(s *session, reply *element) { printBundle(s, reply.at("bundleInstanceTask")) }),
		},
		{
			name: "describe-conversion-tasks", short: "Show how imports go on",
			takes: "[TASK...]", as: "ConversionTaskId",
			run: calling("DescribeConversionTasks", func(s *session, reply *element) {
				for task := range reply.each("conversionTasks") {
					printConversion(s, task)
				}
			}),
		},
		{
			name: "cancel-conversion-task", short: "Cancel an import",
			takes: "TASK", as: "ConversionTaskId",
			run: calling("CancelConversionTask", nil),
		},
	}
}

// uploadPolicy makes and signs what lets the cloud write the bundle on the
// owner's behalf, where it wasn't given.
func uploadPolicy(s *session) error {
	const policyParam, signatureParam = "Storage.S3.UploadPolicy", "Storage.S3.UploadPolicySignature"
	owner := cmp.Or(s.text("owner-akid"), s.access.Credentials.AccessKey)
	if owner == "" {
		return errors.New("argument -o/--owner-akid is required, where no access key is configured")
	}
	s.params.Set("Storage.S3.AWSAccessKeyId", owner)
	policy := s.text("policy")
	if policy == "" {
		hours, _ := strconv.Atoi(cmp.Or(s.text("expires"), "24")) // checked to be a number
		policy = newPolicy(s.text("bucket"), s.text("prefix"), time.Now().Add(time.Duration(hours)*time.Hour))
		s.params.Set(policyParam, policy)
	}
	if s.given("policy-signature") {
		return nil
	}
	secret := s.text("owner-sak")
	if secret == "" && owner == s.access.Credentials.AccessKey {
		secret = s.access.Credentials.Secret
	}
	if secret == "" {
		return errors.New("argument -w/--owner-sak is required, where no -s/--policy-signature is given")
	}
	s.params.Set(signatureParam, signPolicy(policy, secret))
	return nil
}

// newPolicy lets objects of the prefix be written until it expires, in base64.
func newPolicy(bucket, prefix string, expires time.Time) string {
	text, _ := json.Marshal(map[string]any{
		"expiration": expires.UTC().Format("2006-01-02T15:04:05Z"),
		"conditions": []any{
			map[string]string{"acl": "ec2-bundle-read"},
			map[string]string{"bucket": bucket},
			[]string{"starts-with", "$key", prefix},
		},
	}) // strings can't fail
	return base64.StdEncoding.EncodeToString(text)
}

// signPolicy as S3 has browsers' uploads signed: HMAC-SHA1 of its base64.
func signPolicy(policy, secret string) string {
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(policy))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func printBundle(s *session, task *element) {
	bucket, prefix := task.get("storage/S3/bucket"), task.get("storage/S3/prefix")
	manifest := ""
	if bucket != "" && prefix != "" {
		manifest = fmt.Sprintf("%s/%s.manifest.xml", bucket, prefix)
	}
	s.line("BUNDLE", task.get("bundleId"), task.get("instanceId"), bucket, prefix, task.get("startTime"),
		task.get("updateTime"), task.get("state"), task.get("progress"), manifest)
}

// printConversion prints names and values side by side, and leaves out what
// isn't known.
func printConversion(s *session, task *element) {
	var fields []string
	add := func(name, value string) {
		if value != "" {
			fields = append(fields, name, value)
		}
	}
	volume, instance := task.at("importVolume"), task.at("importInstance")
	if volume != nil {
		add("TaskType", "IMPORTVOLUME")
	}
	if instance != nil {
		add("TaskType", "IMPORTINSTANCE")
	}
	add("TaskId", task.get("conversionTaskId"))
	add("ExpirationTime", task.get("expirationTime"))
	add("Status", task.get("state"))
	add("StatusMessage", task.get("statusMessage"))
	add("InstanceID", instance.get("instanceId"))
	s.line(fields...)
	if volume != nil {
		printDiskImage(s, volume)
	}
	for v := range instance.each("volumes") {
		printDiskImage(s, v)
	}
}

func printDiskImage(s *session, disk *element) {
	fields := []string{"DISKIMAGE"}
	for _, f := range [][2]string{
		{"DiskImageFormat", "image/format"}, {"DiskImageSize", "image/size"}, {"VolumeId", "volume/id"}, {"VolumeSize", "volume/size"},
		{"AvailabilityZone", "availabilityZone"}, {"ApproximateBytesConverted", "bytesConverted"}, {"Status", "status"}, {"StatusMessage", "statusMessage"},
	} {
		if value := disk.get(f[1]); value != "" {
			fields = append(fields, f[0], value)
		}
	}
	s.line(fields...)
}
