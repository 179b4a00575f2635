"""The same resources by a script with boto3 and one CloudFormation stack, as teams without a deployer do it."""

import json
import sys
import time

import boto3

STACK, BUCKET = "bench", "bench-artifacts"


def template(cron):
    trust = lambda service: {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
        ],
    }
    resources = {
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "bench"}},
        "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "bench"}},
        "Group": {"Type": "AWS::Scheduler::ScheduleGroup", "Properties": {"Name": "bench"}},
        "SchedulerRole": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "RoleName": "bench-scheduler",
                "AssumeRolePolicyDocument": trust("scheduler.amazonaws.com"),
            },
        },
    }
    for name in ["backup", "cleanup"]:
        resources[name + "Logs"] = {
            "Type": "AWS::Logs::LogGroup",
            "Properties": {"LogGroupName": "/aws/lambda/bench-" + name, "RetentionInDays": 30},
        }
        resources[name + "Role"] = {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "RoleName": "bench-" + name,
                "AssumeRolePolicyDocument": trust("lambda.amazonaws.com"),
            },
        }
        resources[name] = {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "FunctionName": "bench-" + name,
                "Runtime": "provided.al2023",
                "Architectures": ["arm64"],
                "Handler": "bootstrap",
                "Role": {"Fn::GetAtt": [name + "Role", "Arn"]},
                "Code": {"S3Bucket": BUCKET, "S3Key": name + ".zip"},
                "MemorySize": 256,
                "Timeout": 900,
            },
        }
        resources[name + "Schedule"] = {
            "Type": "AWS::Scheduler::Schedule",
            "DependsOn": "Group",
            "Properties": {
                "Name": "bench-" + name,
                "GroupName": "bench",
                "ScheduleExpression": cron if name == "backup" else "cron(0 3 * * ? *)",
                "FlexibleTimeWindow": {"Mode": "OFF"},
                "Target": {
                    "Arn": {"Fn::GetAtt": [name, "Arn"]},
                    "RoleArn": {"Fn::GetAtt": ["SchedulerRole", "Arn"]},
                },
            },
        }
        for metric in ["Errors", "Throttles", "Duration"]:
            resources[name + metric] = {
                "Type": "AWS::CloudWatch::Alarm",
                "Properties": {
                    "AlarmName": "bench-%s-%s" % (name, metric),
                    "Namespace": "AWS/Lambda",
                    "MetricName": metric,
                    "Statistic": "Maximum",
                    "Period": 300,
                    "EvaluationPeriods": 1,
                    "Threshold": 1,
                    "ComparisonOperator": "GreaterThanOrEqualToThreshold",
                },
            }
    return json.dumps({"Resources": resources})


def wait(cloudformation):
    while True:
        try:
            status = cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]["StackStatus"]
        except cloudformation.exceptions.ClientError:
            return
        if not status.endswith("IN_PROGRESS"):
            assert "FAILED" not in status and "ROLLBACK" not in status, status
            return
        time.sleep(0.5)


def main(step, bundle):
    cloudformation = boto3.client("cloudformation")
    cron = "cron(0 1 * * ? *)" if step == "deploy of one change" else "cron(0 2 * * ? *)"
    if step == "destroy":
        cloudformation.delete_stack(StackName=STACK)
        return wait(cloudformation)
    s3 = boto3.client("s3")
    if step == "deploy":
        s3.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
    for name in ["backup", "cleanup"]:
        s3.upload_file("%s/%s.zip" % (bundle, name), BUCKET, name + ".zip")
    call = cloudformation.create_stack if step == "deploy" else cloudformation.update_stack
    try:
        call(StackName=STACK, TemplateBody=template(cron), Capabilities=["CAPABILITY_NAMED_IAM"])
    except cloudformation.exceptions.ClientError as error:
        if "No updates are to be performed" not in str(error):
            raise
    wait(cloudformation)


main(*sys.argv[1:])
