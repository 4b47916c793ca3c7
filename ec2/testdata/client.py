"""Uses an EC2 by boto3: client.py ENDPOINT IMAGE KEYFILE

Waiters and paginators included. Ends with an error where anything isn't as
boto3's users expect.
"""
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint, image, keyfile = sys.argv[1:]
ec2 = boto3.client(
    "ec2", endpoint_url=endpoint, region_name="mallee", aws_access_key_id="AKI", aws_secret_access_key="s",
    config=Config(retries={"max_attempts": 1}),
)


def refused(code, call, **parameters):
    try:
        call(**parameters)
    except ClientError as e:
        assert e.response["Error"]["Code"] == code, e
        return e.response["Error"]["Message"]
    raise AssertionError(f"{parameters} succeeded, {code} expected")


assert ec2.describe_regions()["Regions"][0]["RegionName"] == "mallee"
assert ec2.describe_availability_zones()["AvailabilityZones"][0]["Messages"] == []
assert ec2.describe_instances()["Reservations"] == []
with open(keyfile, "rb") as f:
    key = ec2.import_key_pair(KeyName="imported", PublicKeyMaterial=f.read())
assert key["KeyFingerprint"] == "83:8a:b6:52:74:e5:ec:a9:3e:ce:cf:e3:cf:7d:d4:39", key
made = ec2.create_key_pair(KeyName="made", KeyType="ed25519")
assert made["KeyMaterial"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
assert [k["KeyName"] for k in ec2.describe_key_pairs(KeyNames=["made"])["KeyPairs"]] == ["made"]

run = dict(
    ImageId=image, MinCount=6, MaxCount=6, KeyName="made", UserData="#!/bin/sh\necho ü\n", Monitoring={"Enabled": False},
    Placement={"AvailabilityZone": "one", "Tenancy": "default"}, SecurityGroups=["default"],
    TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web"}]}],
)
assert "DryRun" in refused("DryRunOperation", ec2.run_instances, DryRun=True, **run)
first = ec2.run_instances(ClientToken="t", **run)
assert ec2.run_instances(ClientToken="t", **run)["ReservationId"] == first["ReservationId"]
ids = [i["InstanceId"] for i in first["Instances"]]
assert len(ids) == 6 and all(i["State"] == {"Code": 0, "Name": "pending"} for i in first["Instances"])
assert first["Instances"][0]["Tags"] == [{"Key": "Name", "Value": "web"}]
ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": ids}])

pages = list(ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5}))
assert len(pages) == 2 and sum(len(r["Instances"]) for p in pages for r in p["Reservations"]) == 6
everything = ec2.get_paginator("describe_instance_types").paginate().build_full_result()["InstanceTypes"]
assert next(t for t in everything if t["InstanceType"] == "m1.small")["MemoryInfo"] == {"SizeInMiB": 512}

fast = {"Delay": 0, "MaxAttempts": 3}
ec2.get_waiter("instance_exists").wait(InstanceIds=ids, WaiterConfig=fast)
ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig=fast)
ec2.get_waiter("instance_status_ok").wait(InstanceIds=ids, WaiterConfig=fast)
ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig=fast)
ec2.get_waiter("key_pair_exists").wait(KeyNames=["made"], WaiterConfig=fast)
assert ec2.get_console_output(InstanceId=ids[0])["Output"] == "hello from the guest"
assert ec2.describe_instance_attribute(InstanceId=ids[0], Attribute="userData")["UserData"]["Value"]
refused("InvalidInstanceID.NotFound", ec2.terminate_instances, InstanceIds=[ids[0], "i-99999999"])
refused("UnsupportedOperation", ec2.stop_instances, InstanceIds=ids)
ec2.reboot_instances(InstanceIds=ids)
changes = ec2.terminate_instances(InstanceIds=ids)["TerminatingInstances"]
assert [c["CurrentState"]["Name"] for c in changes] == ["shutting-down"] * 6
ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig=fast)
ec2.delete_key_pair(KeyName="made")
assert len(ec2.describe_key_pairs()["KeyPairs"]) == 1
print("fine")
