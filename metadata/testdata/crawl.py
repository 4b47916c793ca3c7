# cloud-init's own source of data for EC2, led to another address; what it has found
# out is printed as JSON, bytes in base64.
import base64
import json
import sys

from cloudinit import helpers
from cloudinit.sources import DataSourceEc2 as ec2

source = ec2.DataSourceEc2({}, None, helpers.Paths({}))
source.metadata_urls = [sys.argv[1]]
source._cloud_name = ec2.CloudNames.AWS
found = source.crawl_metadata()
json.dump(found, sys.stdout, default=lambda b: base64.b64encode(b).decode())
