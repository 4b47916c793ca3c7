package test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/cloud"
)

// after a name in a record, its value.
func after(t *testing.T, records [][]string, name string) string {
	t.Helper()
	for _, r := range records {
		for n := range len(r) - 1 {
			if r[n] == name {
				return r[n+1]
			}
		}
	}
	t.Fatalf("no %s in %q", name, records)
	return ""
}

// converted is a task when it has come to its end, which is the one wanted.
func converted(t *testing.T, c *cloud.Cloud, id, state string) types.ConversionTask {
	t.Helper()
	var task types.ConversionTask
	ctx := within(t, taskTime)
	err := cloud.Poll(ctx, id, func() error {
		out, err := ec2Of(t, c).DescribeConversionTasks(ctx, &ec2.DescribeConversionTasksInput{ConversionTaskIds: []string{id}})
		if err != nil {
			return cloud.Never(err)
		}
		task = out.ConversionTasks[0]
		return ended(string(task.State), state, task.StatusMessage)
	})
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// TestImportedInstance: a disk that is uploaded becomes an instance, which is
// stopped, and is what the disk is when it is started.
func TestImportedInstance(t *testing.T) {
	w := theWorld(t)
	noTasksLeft(t, w.Cloud)
	e := eucaOf(t, w.Cloud)
	for format, file := range map[string]string{"vmdk": "VMDK", "vhd": "VHD"} {
		t.Run(format, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk."+format)
			write(t, path, inFormat(t, helloDisk(), file))
			zone := one(t, e.records(t, "euca-describe-availability-zones"), "AVAILABILITYZONE")[1]
			made := e.records(t, "euca-import-instance", path, "-f", format, "-a", "x86_64", "-p", "Linux", "-t", "m1.small", "-z", zone,
				"-b", "euca-imports", "--prefix", folderOf(t), "--key", keyName, "-d", "a machine from elsewhere")
			id := after(t, made, "TaskId")
			client, ctx := w.ec2(t), within(t, taskTime)
			in := &ec2.DescribeConversionTasksInput{ConversionTaskIds: []string{id}}
			if err := ec2.NewConversionTaskCompletedWaiter(client, quickly[ec2.ConversionTaskCompletedWaiterOptions]).Wait(ctx, in, taskTime); err != nil {
				t.Fatal(err)
			}
			task := converted(t, w.Cloud, id, "completed")
			if task.ImportInstance == nil || aws.ToString(task.ImportInstance.Description) != "a machine from elsewhere" || len(task.ImportInstance.Volumes) != 1 {
				t.Fatalf("the task is %+v", task)
			}
			instance := aws.ToString(task.ImportInstance.InstanceId)
			t.Cleanup(func() { terminate(t, w.Cloud, instance) })
			i := await(t, w.Cloud, types.InstanceStateNameStopped, instance)[0]
			if i.InstanceType != "m1.small" || aws.ToString(i.KeyName) != keyName || i.RootDeviceType != types.DeviceTypeEbs || i.Architecture != types.ArchitectureValuesX8664 {
				t.Errorf("the instance is %+v", i)
			}
			if _, err := client.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: []string{instance}}); err != nil {
				t.Fatal(err)
			}
			await(t, w.Cloud, types.InstanceStateNameRunning, instance)
			e.says(t, instance)
			e.records(t, "euca-delete-disk-image", "-t", id)
		})
	}
}

// TestCancelledConversion waits for an upload that never comes, until it is given up.
func TestCancelledConversion(t *testing.T) {
	w := theWorld(t)
	noTasksLeft(t, w.Cloud)
	e := eucaOf(t, w.Cloud)
	path, _ := imageFile(t, 1<<20)
	zone := one(t, e.records(t, "euca-describe-availability-zones"), "AVAILABILITYZONE")[1]
	before := e.records(t, "euca-describe-volumes")
	id := after(t, e.records(t, "euca-import-volume", path, "-f", "raw", "-z", zone, "-b", "euca-imports", "--prefix", folderOf(t), "--no-upload"), "TaskId")
	e.records(t, "euca-cancel-conversion-task", id)
	converted(t, w.Cloud, id, "cancelled")
	if now := e.records(t, "euca-describe-volumes"); len(now) != len(before) {
		t.Errorf("there were the volumes %q, and there are %q", before, now)
	}
	if _, said, status := e.run(t, "euca-resume-import", path, "-t", id); status != 1 || !strings.Contains(said, "cancelled") {
		t.Errorf("an upload to a cancelled task: %d, %s", status, said)
	}
	if _, said, status := e.run(t, "euca-cancel-conversion-task", id); status != 1 || !strings.Contains(said, id) {
		t.Errorf("giving it up again: %d, %s", status, said)
	}
}
