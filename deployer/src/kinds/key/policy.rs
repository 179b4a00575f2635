//! Who may use the key. A key's policy is the last word on it: what it does not allow, no policy of IAM's can.

use serde_json::{Value, json};

use crate::environment::Environment;
use crate::policy::PolicyDocument;
use crate::policy::copies::for_key_of_sources;
use crate::scope::{Function, Scope};

/// The policy of the key that a deploy makes.
///
/// It lets the account's IAM policies decide, as AWS's own default policy does (source: KMS developer guide, "Default
/// key policy"), and names no role: KMS refuses a policy with a role that does not exist yet, and a role that is made
/// anew would be another one to it. What the functions' roles may do stands in `policies/`; and whoever has to restore
/// in an emergency needs a right of IAM's, but no change of the key first. Services of AWS's that come without a role
/// are let in by name.
pub(super) fn policy(environment: &Environment, scope: &Scope) -> PolicyDocument {
    let root = format!("arn:{}:iam::{}:root", scope.partition(), scope.account);
    let mut statements = vec![json!({
        "Sid": "IamDecides",
        "Effect": "Allow",
        "Principal": { "AWS": root },
        "Action": "kms:*",
        "Resource": "*",
    })];
    if scope.encryption.at_rest {
        statements.extend(for_services(scope));
    }
    statements.extend(for_key_of_sources(environment, scope));
    json!({ "Version": "2012-10-17", "Statement": statements }).into()
}

/// What the policy of any key has to say beside that, where it encrypts the topic and the log groups. The dead-letter
/// queue needs nothing here: EventBridge Scheduler and Lambda write to it with our roles. Nor do the functions'
/// settings: Lambda is given grants by whoever deploys.
pub fn for_services(scope: &Scope) -> Vec<Value> {
    let log_group = |function| scope.log_group_arn(&scope.log_group(function));
    vec![
        // Without this an alarm reaches nobody. Both conditions hold also where CloudWatch would not say for whom it
        // publishes (SNS's documentation is not clear on it); the topic's own policy has them in any case.
        json!({
            "Sid": "AlarmsPublish",
            "Effect": "Allow",
            "Principal": { "Service": "cloudwatch.amazonaws.com" },
            "Action": ["kms:Decrypt", "kms:GenerateDataKey*"],
            "Resource": "*",
            "Condition": {
                "StringEqualsIfExists": { "aws:SourceAccount": scope.account },
                "ArnLikeIfExists": { "aws:SourceArn": scope.alarm_arn(&scope.alarm("*")) },
            },
        }),
        // Source: CloudWatch Logs User Guide, "Encrypt log data in CloudWatch Logs using AWS KMS".
        json!({
            "Sid": "LogsAreEncrypted",
            "Effect": "Allow",
            "Principal": { "Service": format!("logs.{}.amazonaws.com", scope.region) },
            "Action": ["kms:Decrypt", "kms:Describe*", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"],
            "Resource": "*",
            "Condition": { "ArnEquals": { "kms:EncryptionContext:aws:logs:arn": Function::ALL.map(log_group) } },
        }),
    ]
}
