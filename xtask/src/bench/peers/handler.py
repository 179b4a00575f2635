"""Backup and cleanup as hundreds of published scripts do them, as a Lambda function.

The runtime loop is the least that Lambda asks for; AWS's own does more, and starts more slowly.
"""

import json
import os
import sys
import urllib.request

import boto3

ec2 = boto3.client("ec2")


def backup(event):
    made = 0
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=[{"Name": "tag:Backup", "Values": ["true"]}]
    )
    for page in pages:
        for reservation in page["Reservations"]:
            for instance in reservation["Instances"]:
                for device in instance["BlockDeviceMappings"]:
                    snapshot = ec2.create_snapshot(
                        VolumeId=device["Ebs"]["VolumeId"], Description="nightly"
                    )
                    ec2.create_tags(
                        Resources=[snapshot["SnapshotId"]],
                        Tags=[{"Key": "DeleteOn", "Value": "2099-01-01"}],
                    )
                    made += 1
    return {"made": made}


def cleanup(event):
    deleted = 0
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"], Filters=[{"Name": "tag:DeleteOn", "Values": ["2026-01-01"]}]
    )
    due = [snapshot["SnapshotId"] for page in pages for snapshot in page["Snapshots"]]
    for snapshot in due:
        ec2.delete_snapshot(SnapshotId=snapshot)
        deleted += 1
    return {"deleted": deleted}


def main():
    handler = {"backup": backup, "cleanup": cleanup}[sys.argv[1]]
    api = "http://%s/2018-06-01/runtime/invocation/" % os.environ["AWS_LAMBDA_RUNTIME_API"]
    while True:
        with urllib.request.urlopen(api + "next") as answer:
            request = answer.headers["lambda-runtime-aws-request-id"]
            event = json.load(answer)
        try:
            path, payload = "/response", handler(event)
        except Exception as error:
            path, payload = "/error", {"errorMessage": str(error), "errorType": type(error).__name__}
        data = json.dumps(payload).encode()
        urllib.request.urlopen(urllib.request.Request(api + request + path, data=data)).read()


main()
