"""A life of two instances as boto3 sees it: waiters, paginators, resources. Arguments: endpoint, image."""
import base64
import sys

import boto3
from botocore.exceptions import ClientError

endpoint, image = sys.argv[1:]
ec2 = boto3.client("ec2", endpoint_url=endpoint)


def expect(condition, what):
    if not condition:
        sys.exit(f"not as expected: {what}")


def refused(code, call, **parameters):
    try:
        call(**parameters)
    except ClientError as e:
        expect(e.response["Error"]["Code"] == code, f"{e}, want {code}")
        expect(e.response["ResponseMetadata"]["RequestId"], "a request id")
    else:
        sys.exit(f"{call} succeeded, want {code}")


run = ec2.run_instances(
    ImageId=image, MinCount=2, MaxCount=2, UserData="hello",
    TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "boto"}]}],
)
ids = [i["InstanceId"] for i in run["Instances"]]
expect(len(ids) == 2 and run["OwnerId"], run)
try:
    fast = {"Delay": 1, "MaxAttempts": 60}
    ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig=fast)
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=ids, WaiterConfig=fast)

    found = ec2.describe_instances(Filters=[{"Name": "tag:Name", "Values": ["bo*"]}, {"Name": "instance-state-name", "Values": ["running"]}])
    expect([i["InstanceId"] for r in found["Reservations"] for i in r["Instances"]].sort() == ids.sort(), found)

    whole = ec2.describe_instances()["Reservations"]
    pages = list(ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5}))
    paged = [i["InstanceId"] for p in pages for r in p["Reservations"] for i in r["Instances"]]
    expect(sorted(paged) == sorted(i["InstanceId"] for r in whole for i in r["Instances"]), paged)
    expect(len(pages) >= len(paged) / 5, f"{len(paged)} instances on {len(pages)} pages of 5")

    types = [t["InstanceType"] for p in ec2.get_paginator("describe_instance_types").paginate(PaginationConfig={"PageSize": 10}) for t in p["InstanceTypes"]]
    expect("m1.small" in types and len(types) == len(set(types)) > 20, types)

    refused("DryRunOperation", ec2.terminate_instances, InstanceIds=ids, DryRun=True)
    refused("InvalidInstanceID.NotFound", ec2.describe_instances, InstanceIds=["i-ffffffff"])

    instance = boto3.resource("ec2", endpoint_url=endpoint).Instance(ids[0])
    expect(instance.state["Name"] == "running" and instance.tags == [{"Key": "Name", "Value": "boto"}], instance.state)
    instance.create_tags(Tags=[{"Key": "more", "Value": "1"}])
    tags = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [ids[0]]}])["Tags"]
    expect({t["Key"]: t["Value"] for t in tags} == {"Name": "boto", "more": "1"}, tags)
    expect("Output" in ec2.get_console_output(InstanceId=ids[0]), "a console")

    key = ec2.import_key_pair(KeyName="boto", PublicKeyMaterial=b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl x")
    expect(ec2.describe_key_pairs(KeyNames=["boto"])["KeyPairs"][0]["KeyFingerprint"] == key["KeyFingerprint"], key)
    ec2.delete_key_pair(KeyName="boto")
finally:
    ec2.terminate_instances(InstanceIds=ids)
ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig=fast)
