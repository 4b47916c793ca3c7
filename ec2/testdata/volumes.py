"""Uses volumes and snapshots of an EC2 as boto3 has them: volumes.py ENDPOINT SNAPSHOT

The cloud behind makes every wish come true by the next look at it.
"""
import sys

import boto3
import botocore.exceptions

endpoint, snapshot = sys.argv[1:]
ec2 = boto3.client("ec2", endpoint_url=endpoint, region_name="mallee", aws_access_key_id="a", aws_secret_access_key="s")
fast = {"Delay": 0, "MaxAttempts": 4}


def wait(what, **of):
    ec2.get_waiter(what).wait(WaiterConfig=fast, **of)


def refused(code, call, **parameters):
    try:
        call(**parameters)
    except botocore.exceptions.ClientError as e:
        assert e.response["Error"]["Code"] == code, e
        return
    raise AssertionError(f"{parameters} succeeded, {code} expected")


root = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot, "VolumeType": "gp3", "DeleteOnTermination": True}}
image = ec2.register_image(Name="backed", RootDeviceName="/dev/sda1", VirtualizationType="hvm", BlockDeviceMappings=[root])["ImageId"]
extra = {"DeviceName": "/dev/sdh", "Ebs": {"VolumeSize": 3, "DeleteOnTermination": False}}
instance = ec2.run_instances(
    ImageId=image, MinCount=1, MaxCount=1, InstanceType="t2.micro", BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 12}}, extra],
    TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "of", "Value": "it"}]}],
)["Instances"][0]
one = [instance["InstanceId"]]
wait("instance_running", InstanceIds=one)
found = ec2.describe_instances(InstanceIds=one)["Reservations"][0]["Instances"][0]
assert found["RootDeviceType"] == "ebs" and found["RootDeviceName"] == "/dev/sda1"
devices = {m["DeviceName"]: m["Ebs"] for m in found["BlockDeviceMappings"]}
assert sorted(devices) == ["/dev/sda1", "/dev/sdh"], devices
assert devices["/dev/sda1"]["DeleteOnTermination"] and not devices["/dev/sdh"]["DeleteOnTermination"]
roots = ec2.describe_volumes(VolumeIds=[devices["/dev/sda1"]["VolumeId"]])["Volumes"]
assert roots[0]["Size"] == 12 and roots[0]["Iops"] == 3000 and roots[0]["Tags"] == [{"Key": "of", "Value": "it"}], roots

made = ec2.create_volume(AvailabilityZone="one", Size=1, VolumeType="gp3", ClientToken="t")
volume = made["VolumeId"]
assert made["State"] == "creating" and made["CreateTime"].year == 2026 and made["Attachments"] == [], made
wait("volume_available", VolumeIds=[volume])
attached = ec2.attach_volume(VolumeId=volume, InstanceId=one[0], Device="/dev/sdf")
assert attached["State"] == "attaching", attached
wait("volume_in_use", VolumeIds=[volume])
assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Attachments"][0]["State"] == "attached"
refused("VolumeInUse", ec2.attach_volume, VolumeId=volume, InstanceId=one[0], Device="/dev/sdg")
refused("VolumeInUse", ec2.delete_volume, VolumeId=volume)
ec2.modify_volume(VolumeId=volume, Size=5)
ec2.describe_volumes(VolumeIds=[volume])
changed = ec2.describe_volumes_modifications(VolumeIds=[volume])["VolumesModifications"][0]
assert changed["ModificationState"] == "completed" and changed["TargetSize"] == 5 and changed["Progress"] == 100, changed
assert ec2.describe_volume_status(VolumeIds=[volume])["VolumeStatuses"][0]["VolumeStatus"]["Status"] == "ok"
assert ec2.describe_volume_attribute(VolumeId=volume, Attribute="autoEnableIO")["AutoEnableIO"] == {"Value": False}

taken = ec2.create_snapshot(VolumeId=volume, Description="d", TagSpecifications=[{"ResourceType": "snapshot", "Tags": [{"Key": "k", "Value": "v"}]}])
assert taken["State"] == "pending" and taken["VolumeSize"] == 5 and taken["Progress"] == "0%", taken
wait("snapshot_completed", SnapshotIds=[taken["SnapshotId"]])
several = ec2.create_snapshots(InstanceSpecification={"InstanceId": one[0], "ExcludeBootVolume": True})["Snapshots"]
assert len(several) == 2, several
wait("snapshot_completed", SnapshotIds=[s["SnapshotId"] for s in several])
copy = ec2.copy_snapshot(SourceRegion="mallee", SourceSnapshotId=taken["SnapshotId"], DestinationRegion="mallee")["SnapshotId"]
ec2.modify_snapshot_attribute(SnapshotId=copy, CreateVolumePermission={"Add": [{"Group": "all"}]})
assert ec2.describe_snapshot_attribute(SnapshotId=copy, Attribute="createVolumePermission")["CreateVolumePermissions"] == [{"Group": "all"}]
pages = ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], PaginationConfig={"PageSize": 5})
assert {taken["SnapshotId"], copy} <= {s["SnapshotId"] for p in pages for s in p["Snapshots"]}

local = found["PrivateIpAddress"]
ec2.stop_instances(InstanceIds=one)
wait("instance_stopped", InstanceIds=one)
ec2.start_instances(InstanceIds=one)
wait("instance_running", InstanceIds=one)
assert ec2.describe_instances(InstanceIds=one)["Reservations"][0]["Instances"][0]["PrivateIpAddress"] == local

made = ec2.create_image(InstanceId=one[0], Name="of an instance", NoReboot=True)["ImageId"]
wait("image_available", ImageIds=[made])
mapped = ec2.describe_images(ImageIds=[made])["Images"][0]["BlockDeviceMappings"]
assert [m["DeviceName"] for m in mapped][0] == "/dev/sda1" and len(mapped) == 3, mapped
refused("InvalidSnapshot.InUse", ec2.delete_snapshot, SnapshotId=mapped[0]["Ebs"]["SnapshotId"])

ec2.modify_instance_attribute(InstanceId=one[0], BlockDeviceMappings=[{"DeviceName": "/dev/sdh", "Ebs": {"DeleteOnTermination": True}}])
ec2.detach_volume(VolumeId=volume, InstanceId=one[0], Device="/dev/sdf")
wait("volume_available", VolumeIds=[volume])
ec2.terminate_instances(InstanceIds=one)
wait("instance_terminated", InstanceIds=one)
wait("volume_deleted", VolumeIds=[devices["/dev/sda1"]["VolumeId"], devices["/dev/sdh"]["VolumeId"]])
ec2.delete_volume(VolumeId=volume)
wait("volume_deleted", VolumeIds=[volume])
ec2.delete_snapshot(SnapshotId=taken["SnapshotId"])
refused("InvalidSnapshot.NotFound", ec2.describe_snapshots, SnapshotIds=[taken["SnapshotId"]])
print("fine")
