"""What boto3 must find of Walrus, area by area. Arguments: endpoint, then the
areas; all of them if none is named. Keys are those of the room's tests."""
import json
import sys
import uuid

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = sys.argv[1]
ANNA, BERT = "000000000002", "000000000003"


def client(access=None, secret=None):
    config = Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"},
                    signature_version=None if access else UNSIGNED)
    return boto3.client("s3", endpoint_url=ENDPOINT, region_name="us-east-1", config=config,
                        aws_access_key_id=access, aws_secret_access_key=secret)


anna, bert, nobody = client("AKIANNA", "anna-secret"), client("AKIBERT", "bert-secret"), client()
failures = []


def want(got, expected, what=""):
    if got != expected:
        failures.append(f"{area}: {what} got {got!r}, want {expected!r}")


def refused(code, call, **parameters):
    try:
        call(**parameters)
    except ClientError as e:
        want(e.response["Error"]["Code"], code, f"{call.__name__} {parameters}")
    else:
        failures.append(f"{area}: {call.__name__} {parameters} succeeded, want {code}")


def bucket(**parameters):
    name = "b-" + uuid.uuid4().hex[:12]
    anna.create_bucket(Bucket=name, **parameters)
    return name


def customer():
    name = bucket()
    body = bytes(i % 251 for i in range(1000))
    key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
    want(anna.put_object(Bucket=name, Key="o", Body=body, **key).get("SSECustomerAlgorithm"), "AES256")
    for parameters, part in (({}, body), ({"Range": "bytes=17-40"}, body[17:41]), ({"Range": "bytes=-7"}, body[-7:])):
        out = anna.get_object(Bucket=name, Key="o", **key, **parameters)
        want(out["Body"].read() == part, True, str(parameters))
        want((out.get("ServerSideEncryption"), out["SSECustomerAlgorithm"]), (None, "AES256"))
    want(anna.head_object(Bucket=name, Key="o", **key)["ContentLength"], 1000)
    refused("400", anna.head_object, Bucket=name, Key="o")
    refused("InvalidRequest", anna.get_object, Bucket=name, Key="o")
    refused("InvalidRequest", anna.copy_object, Bucket=name, Key="c", CopySource=f"{name}/o")
    refused("AccessDenied", anna.get_object, Bucket=name, Key="o", SSECustomerAlgorithm="AES256", SSECustomerKey="j" * 32)
    for change in ({"SSECustomerKey": "short"}, {"SSECustomerAlgorithm": "aes"}, {"SSECustomerKeyMD5": "AAAAAAAAAAAAAAAAAAAAAA=="}):
        refused("InvalidArgument", anna.put_object, Bucket=name, Key="o", Body="x", **{**key, **change})
    anna.put_object(Bucket=name, Key="plain", Body="x")
    refused("InvalidRequest", anna.get_object, Bucket=name, Key="plain", **key)
    refused("NotImplemented", anna.create_multipart_upload, Bucket=name, Key="m", **key)


def encryption():
    name = bucket()
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}
    want(anna.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"], [rule])
    rule["BucketKeyEnabled"] = True
    anna.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})
    want(anna.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"], [rule])
    refused("MalformedXML", anna.put_bucket_encryption, Bucket=name, ServerSideEncryptionConfiguration={"Rules": []})
    anna.delete_bucket_encryption(Bucket=name)
    for call in (anna.put_object(Bucket=name, Key="o", Body="x"), anna.get_object(Bucket=name, Key="o"),
                 anna.head_object(Bucket=name, Key="o"), anna.copy_object(Bucket=name, Key="c", CopySource=f"{name}/o")):
        want(call.get("ServerSideEncryption"), "AES256")


def lifecycle():
    name = bucket()
    refused("NoSuchLifecycleConfiguration", anna.get_bucket_lifecycle_configuration, Bucket=name)
    rules = [
        {"ID": "one", "Expiration": {"Days": 1}, "Prefix": "t/", "Status": "Enabled"},
        {"ID": "two", "Filter": {"And": {"Prefix": "x", "Tags": [{"Key": "a", "Value": "b"}]}}, "Status": "Disabled",
         "NoncurrentVersionExpiration": {"NoncurrentDays": 3}},
    ]
    anna.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
    want(anna.get_bucket_lifecycle_configuration(Bucket=name)["Rules"], rules)
    for code, change in (
            ("InvalidArgument", {"Expiration": {"Days": 0}}), ("MalformedXML", {"Status": "enabled"}),
            ("InvalidArgument", {"ID": "a" * 256}), ("InvalidArgument", {"Expiration": {"Date": "2030-01-01T01:00:00Z"}})):
        refused(code, anna.put_bucket_lifecycle_configuration, Bucket=name, LifecycleConfiguration={"Rules": [{**rules[0], **change}]})
    refused("InvalidArgument", anna.put_bucket_lifecycle_configuration, Bucket=name,
            LifecycleConfiguration={"Rules": [rules[0], rules[0]]})
    anna.delete_bucket_lifecycle(Bucket=name)
    refused("NoSuchLifecycleConfiguration", anna.get_bucket_lifecycle_configuration, Bucket=name)


def settings():
    name = bucket()
    refused("NoSuchPublicAccessBlockConfiguration", anna.get_public_access_block, Bucket=name)
    block = {"BlockPublicAcls": True, "IgnorePublicAcls": False, "BlockPublicPolicy": True, "RestrictPublicBuckets": False}
    anna.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=block)
    want(anna.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"], block)
    for other in (bert, nobody):
        refused("AccessDenied", other.get_public_access_block, Bucket=name)
    want("LoggingEnabled" in anna.get_bucket_logging(Bucket=name), False)
    target = {"TargetBucket": name, "TargetPrefix": ""}
    anna.put_bucket_logging(Bucket=name, BucketLoggingStatus={"LoggingEnabled": target})
    want(anna.get_bucket_logging(Bucket=name)["LoggingEnabled"], target)
    refused("InvalidTargetBucketForLogging", anna.put_bucket_logging, Bucket=name,
            BucketLoggingStatus={"LoggingEnabled": {**target, "TargetBucket": "nowhere-to-be"}})
    want(anna.get_bucket_request_payment(Bucket=name)["Payer"], "BucketOwner")
    anna.put_bucket_request_payment(Bucket=name, RequestPaymentConfiguration={"Payer": "Requester"})
    want(anna.get_bucket_request_payment(Bucket=name)["Payer"], "Requester")
    anna.put_bucket_accelerate_configuration(Bucket=name, AccelerateConfiguration={"Status": "Enabled"})
    want(anna.get_bucket_accelerate_configuration(Bucket=name)["Status"], "Enabled")
    anna.get_bucket_notification_configuration(Bucket=name)
    refused("ReplicationConfigurationNotFoundError", anna.get_bucket_replication, Bucket=name)
    refused("NoSuchBucketPolicy", anna.get_bucket_policy_status, Bucket=name)
    refused("NoSuchBucket", anna.get_bucket_logging, Bucket="nowhere-to-be")
    anna.delete_bucket(Bucket=name)
    anna.create_bucket(Bucket=name)  # remembers nothing of the one before
    want(anna.get_bucket_request_payment(Bucket=name)["Payer"], "BucketOwner")


def versions():
    name = bucket()
    anna.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    made = [anna.put_object(Bucket=name, Key="o", Body=str(i))["VersionId"] for i in range(3)]
    want(anna.get_object(Bucket=name, Key="o", VersionId=made[0])["Body"].read(), b"0")
    marker = anna.delete_object(Bucket=name, Key="o")
    want(marker.get("DeleteMarker"), True)
    refused("NoSuchKey", anna.get_object, Bucket=name, Key="o")
    refused("MethodNotAllowed", anna.get_object, Bucket=name, Key="o", VersionId=marker["VersionId"])
    listed = anna.list_object_versions(Bucket=name)
    want([v["VersionId"] for v in listed["Versions"]], made[::-1])
    want([m["VersionId"] for m in listed["DeleteMarkers"]], [marker["VersionId"]])
    anna.delete_object(Bucket=name, Key="o", VersionId=marker["VersionId"])
    want(anna.get_object(Bucket=name, Key="o")["Body"].read(), b"2")
    anna.copy_object(Bucket=name, Key="o", CopySource={"Bucket": name, "Key": "o", "VersionId": made[0]})
    want(anna.get_object(Bucket=name, Key="o")["Body"].read(), b"0")
    out = anna.delete_objects(Bucket=name, Delete={"Objects": [{"Key": "o", "VersionId": v} for v in made]})
    want(sorted(d["VersionId"] for d in out["Deleted"]), sorted(made))


def acls():
    name = bucket(ObjectOwnership="ObjectWriter")
    grants = lambda **of: [(g["Grantee"].get("ID") or g["Grantee"]["URI"].split("/")[-1], g["Permission"]) for g in of["Grants"]]
    anna.put_object(Bucket=name, Key="o", Body="x")
    for other in (bert, nobody):
        refused("AccessDenied", other.get_object, Bucket=name, Key="o")
        refused("AccessDenied", other.list_objects, Bucket=name)
    anna.put_bucket_acl(Bucket=name, ACL="public-read-write")
    want(grants(**anna.get_bucket_acl(Bucket=name)), [(ANNA, "FULL_CONTROL"), ("AllUsers", "READ"), ("AllUsers", "WRITE")])
    nobody.put_object(Bucket=name, Key="anonymous", Body="x")
    bert.put_object(Bucket=name, Key="bert's", Body="x")
    refused("AccessDenied", anna.get_object, Bucket=name, Key="bert's")  # the bucket's owner is not the object's
    bert.get_object(Bucket=name, Key="bert's")
    refused("AccessDenied", nobody.get_object, Bucket=name, Key="o")  # READ of the bucket is of its listing
    refused("NoSuchKey", nobody.get_object, Bucket=name, Key="nothing")
    for permission, may in (("READ", "r"), ("READ_ACP", "a"), ("WRITE_ACP", "w"), ("FULL_CONTROL", "raw")):
        anna.put_object_acl(Bucket=name, Key="o", AccessControlPolicy={"Owner": {"ID": ANNA}, "Grants": [
            {"Grantee": {"Type": "CanonicalUser", "ID": BERT}, "Permission": permission}]})
        for letter, call, parameters in (("r", bert.get_object, {}), ("a", bert.get_object_acl, {}), ("w", bert.put_object_acl, {"ACL": "private"})):
            if letter in may:
                call(Bucket=name, Key="o", **parameters)
            else:
                refused("AccessDenied", call, Bucket=name, Key="o", **parameters)
    anna.put_object_acl(Bucket=name, Key="o", ACL="authenticated-read")
    bert.get_object(Bucket=name, Key="o")
    refused("AccessDenied", nobody.get_object, Bucket=name, Key="o")
    refused("InvalidArgument", anna.put_object_acl, Bucket=name, Key="o", GrantRead="id=nobody-we-know")
    refused("UnresolvableGrantByEmailAddress", anna.put_object_acl, Bucket=name, Key="o", GrantRead="emailAddress=a@example.org")
    anna.put_object(Bucket=name, Key="o", Body="x", ACL="public-read")
    nobody.get_object(Bucket=name, Key="o")
    block = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True}
    anna.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=block)
    refused("AccessDenied", anna.put_object, Bucket=name, Key="o", Body="x", ACL="public-read")
    refused("AccessDenied", anna.put_object_acl, Bucket=name, Key="o", ACL="public-read")
    refused("AccessDenied", nobody.get_object, Bucket=name, Key="o")
    public = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{name}/*"}
    refused("AccessDenied", anna.put_bucket_policy, Bucket=name, Policy=policy(public))
    off = bucket()
    refused("AccessControlListNotSupported", anna.put_bucket_acl, Bucket=off, ACL="public-read")
    refused("AccessControlListNotSupported", anna.put_object, Bucket=off, Key="o", Body="x", ACL="public-read")
    refused("InvalidBucketAclWithObjectOwnership", bucket, ACL="public-read")


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def policies():
    name = bucket()
    of = f"arn:aws:s3:::{name}"
    for key in ("o", "public/o"):
        anna.put_object(Bucket=name, Key=key, Body="x")
    anna.put_bucket_policy(Bucket=name, Policy=policy({
        "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{BERT}:root"}, "Action": ["s3:ListBucket", "s3:GetObject"],
        "Resource": [of, of + "/public/*"]}))
    bert.list_objects(Bucket=name)
    bert.get_object(Bucket=name, Key="public/o")
    refused("AccessDenied", bert.get_object, Bucket=name, Key="o")
    anna.put_object(Bucket=name, Key="o", Body="x")  # the owner needs no policy
    want(json.loads(anna.get_bucket_policy(Bucket=name)["Policy"])["Statement"][0]["Effect"], "Allow")
    want(anna.get_bucket_policy_status(Bucket=name)["PolicyStatus"]["IsPublic"], False)
    anna.put_bucket_policy(Bucket=name, Policy=policy({
        "Effect": "Allow", "Principal": "*", "Action": "s3:ListBucket", "Resource": of,
        "Condition": {"StringEquals": {"s3:prefix": "public/"}}}))
    nobody.list_objects(Bucket=name, Prefix="public/")
    refused("AccessDenied", bert.list_objects, Bucket=name)
    want(anna.get_bucket_policy_status(Bucket=name)["PolicyStatus"]["IsPublic"], True)
    anna.put_bucket_policy(Bucket=name, Policy=policy({"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": of + "/*"}))
    refused("AccessDenied", anna.get_object, Bucket=name, Key="o")
    refused("MalformedPolicy", anna.put_bucket_policy, Bucket=name, Policy="{")
    refused("NotImplemented", anna.put_bucket_policy, Bucket=name, Policy=policy({
        "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "NotAction": "s3:PutObject", "Resource": of + "/*"}))


def listings():
    name = bucket()
    for key in ("a", "b/c", "b/d", "e f", "z/y/x", "control\x01"):
        anna.put_object(Bucket=name, Key=key, Body="x")
    plain = anna.list_objects(Bucket=name)
    want((plain.get("Prefix"), plain.get("Marker"), plain["EncodingType"]), ("", "", "url"))
    want([o["Key"] for o in plain["Contents"]], ["a", "b/c", "b/d", "control\x01", "e f", "z/y/x"])
    folders = anna.list_objects_v2(Bucket=name, Delimiter="/", MaxKeys=2)
    want((folders["IsTruncated"], folders["KeyCount"]), (True, 2))
    rest = anna.list_objects_v2(Bucket=name, Delimiter="/", ContinuationToken=folders["NextContinuationToken"])
    want([o["Key"] for o in rest["Contents"]] + [p["Prefix"] for p in rest["CommonPrefixes"]], ["control\x01", "e f", "z/"])
    want([p["Prefix"] for p in anna.list_objects(Bucket=name, Delimiter=" ")["CommonPrefixes"]], ["e "])
    want(anna.list_objects_v2(Bucket=name, FetchOwner=True)["Contents"][0]["Owner"], {"ID": ANNA})
    refused("InvalidArgument", anna.list_objects_v2, Bucket=name, ContinuationToken="")
    refused("InvalidArgument", anna.list_objects, Bucket=name, MaxKeys=-1)
    want(anna.list_objects(Bucket=name, MaxKeys=0)["IsTruncated"], False)
    out = anna.delete_objects(Bucket=name, Delete={"Quiet": True, "Objects": [{"Key": "a"}, {"Key": "nothing"}]})
    want("Deleted" in out, False)
    refused("MalformedXML", anna.delete_objects, Bucket=name, Delete={"Objects": [{"Key": str(i)} for i in range(1001)]})


def conditions():
    name = bucket()
    etag = anna.put_object(Bucket=name, Key="o", Body="x")["ETag"]
    refused("PreconditionFailed", anna.copy_object, Bucket=name, Key="c", CopySource=f"{name}/o", CopySourceIfNoneMatch=etag)
    refused("304", anna.get_object, Bucket=name, Key="o", IfNoneMatch=etag)
    refused("PreconditionFailed", anna.get_object, Bucket=name, Key="o", IfMatch='"other"')
    refused("InvalidRange", anna.get_object, Bucket=name, Key="o", Range="bytes=5-9")
    refused("InvalidRequest", nobody.get_object, Bucket=name, Key="o", ResponseContentType="a/b")
    refused("InvalidStorageClass", anna.put_object, Bucket=name, Key="o", Body="x", StorageClass="NONE")
    refused("InvalidArgument", anna.put_object, Bucket=name, Key="o", Body="x", ServerSideEncryption="none")
    upload = anna.create_multipart_upload(Bucket=name, Key="m")["UploadId"]
    parts = [{"PartNumber": i, "ETag": anna.upload_part(Bucket=name, Key="m", UploadId=upload, PartNumber=i, Body="x")["ETag"]} for i in (1, 2)]
    refused("InvalidPartOrder", anna.complete_multipart_upload, Bucket=name, Key="m", UploadId=upload, MultipartUpload={"Parts": parts[::-1]})
    refused("EntityTooSmall", anna.complete_multipart_upload, Bucket=name, Key="m", UploadId=upload, MultipartUpload={"Parts": parts})
    shared = bucket(ObjectOwnership="ObjectWriter", ACL="public-read")
    off = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    refused("InvalidBucketAclWithObjectOwnership", anna.put_bucket_ownership_controls, Bucket=shared, OwnershipControls=off)
    anna.put_bucket_acl(Bucket=shared, ACL="private")
    anna.put_bucket_ownership_controls(Bucket=shared, OwnershipControls=off)


AREAS = [acls, conditions, customer, encryption, lifecycle, listings, policies, settings, versions]
for check in AREAS:
    area = check.__name__
    if len(sys.argv) > 2 and area not in sys.argv[2:]:
        continue
    try:
        check()
    except Exception as e:  # the next area tells more
        failures.append(f"{area}: {e!r}")
sys.exit("\n".join(failures) or 0)
