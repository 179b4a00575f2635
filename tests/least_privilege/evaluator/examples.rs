//! The evaluator against what AWS documents. Each case names the page of the IAM User Guide that it is from.

use serde_json::{Value, json};

use super::{Context, Policy, Request};

/// A statement's resources and conditions, the request's resource and context, and whether IAM allows it.
type Case = (&'static str, Value, &'static str, &'static [(&'static str, &'static str)], bool);

const QUEUE: &str = "arn:aws:sqs:us-east-2:111122223333:queue1";
const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:TOPIC-ID";
const BUCKET: &str = "arn:aws:s3:::bucket/David/plan";

fn allow(resource: &str, condition: Value) -> Value {
    json!([{ "Sid": "A", "Effect": "Allow", "Action": "s:Do", "Resource": resource, "Condition": condition }])
}

fn on(resource: &str) -> Value {
    json!([{ "Sid": "A", "Effect": "Allow", "Action": "s:Do", "Resource": resource }])
}

fn when(condition: Value) -> Value {
    allow("*", condition)
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let team = |operator: &str, values: Value| when(json!({ operator: { "aws:PrincipalTag/team": values } }));
    let keys = |operator: &str| when(json!({ operator: { "aws:TagKeys": ["environment", "webserver"] } }));
    let source = |operator: &str, arn: &str| when(json!({ operator: { "aws:SourceArn": arn } }));
    vec![
        // "Policy evaluation logic": what nothing allows is denied, and a deny overrides.
        ("nothing is allowed by default", json!([]), QUEUE, &[], false),
        ("an allow", on("*"), QUEUE, &[], true),
        ("a deny overrides an allow", json!([
            { "Effect": "Allow", "Action": "*", "Resource": "*" },
            { "Effect": "Deny", "Action": "s:Do", "Resource": "*" }]), QUEUE, &[], false),
        ("a deny whose condition fails", json!([
            { "Effect": "Allow", "Action": "*", "Resource": "*" },
            { "Effect": "Deny", "Action": "s:Do", "Resource": "*",
              "Condition": { "StringNotEquals": { "aws:RequestedRegion": "eu-central-1" } } }]),
            QUEUE, &[("aws:RequestedRegion", "eu-central-1")], true),
        // "Action": case does not matter, wildcards work.
        ("an action in another case", json!([{ "Effect": "Allow", "Action": "S:DO", "Resource": "*" }]), QUEUE, &[], true),
        ("an action's prefix", json!([{ "Effect": "Allow", "Action": "s:D*", "Resource": "*" }]), QUEUE, &[], true),
        ("another service's action", json!([{ "Effect": "Allow", "Action": "t:*", "Resource": "*" }]), QUEUE, &[], false),
        ("one of many actions", json!([{ "Effect": "Allow", "Action": ["s:Be", "s:Do"], "Resource": "*" }]), QUEUE, &[], true),
        // "Resource": exact, with wildcards, part by part.
        ("the same ARN", on(QUEUE), QUEUE, &[], true),
        ("another ARN", on("arn:aws:sqs:us-east-2:111122223333:queue2"), QUEUE, &[], false),
        ("an ARN's case matters", on("arn:aws:sqs:us-east-2:111122223333:Queue1"), QUEUE, &[], false),
        ("any queue", on("arn:aws:sqs:us-east-2:111122223333:*"), QUEUE, &[], true),
        ("one character", on("arn:aws:sqs:us-east-2:111122223333:queue?"), QUEUE, &[], true),
        ("any Region", on("arn:aws:sqs:*:111122223333:queue1"), QUEUE, &[], true),
        ("another account", on("arn:aws:sqs:*:444455556666:queue1"), QUEUE, &[], false),
        ("parts that are left out", on("arn:aws:sqs:*"), QUEUE, &[], true),
        ("a wildcard in the resource reaches over slashes", on("arn:aws:s3:::bucket/*"), BUCKET, &[], true),
        ("a wildcard for the account reaches over no colon", on("arn:aws:sqs:us*:queue1"), QUEUE, &[], false),
        ("an action without resources needs a star", on("arn:aws:sqs:*:*:*"), "*", &[], false),
        // "Variables and tags".
        ("a variable", on("arn:aws:s3:::bucket/${aws:username}/*"), BUCKET, &[("aws:username", "David")], true),
        ("a variable with another value", on("arn:aws:s3:::bucket/${aws:username}/*"), BUCKET, &[("aws:username", "Ann")], false),
        ("a variable without a value", on("arn:aws:s3:::bucket/${aws:username}/*"), "arn:aws:s3:::bucket//plan", &[], false),
        ("a variable's default", on("arn:aws:s3:::bucket/${aws:username, 'David'}/*"), BUCKET, &[], true),
        ("a star in a value is no wildcard", on("arn:aws:s3:::bucket/${aws:username}/*"), BUCKET, &[("aws:username", "*")], false),
        ("an escaped star is no wildcard", on("arn:aws:s3:::bucket/${*}/plan"), BUCKET, &[], false),
        ("an escaped star is a star", on("arn:aws:s3:::bucket/${*}/plan"), "arn:aws:s3:::bucket/*/plan", &[], true),
        ("an escaped dollar sign", team("StringEquals", json!("${$}{aws:username}")), QUEUE, &[("aws:PrincipalTag/team", "${aws:username}"), ("aws:username", "ann")], true),
        ("an escaped dollar sign begins no variable", team("StringEquals", json!("${$}{aws:username}")), QUEUE, &[("aws:PrincipalTag/team", "ann"), ("aws:username", "ann")], false),
        // "Condition operators": strings.
        ("equal", team("StringEquals", json!("red")), QUEUE, &[("aws:PrincipalTag/team", "red")], true),
        ("values depend on case", team("StringEquals", json!("red")), QUEUE, &[("aws:PrincipalTag/team", "Red")], false),
        ("keys do not", team("StringEquals", json!("red")), QUEUE, &[("AWS:principaltag/Team", "red")], true),
        ("several values are alternatives", team("StringEquals", json!(["red", "blue"])), QUEUE, &[("aws:PrincipalTag/team", "blue")], true),
        ("an absent key is not equal", team("StringEquals", json!("red")), QUEUE, &[], false),
        ("an absent key passes if it need not exist", team("StringEqualsIfExists", json!("red")), QUEUE, &[], true),
        ("one that exists must be equal", team("StringEqualsIfExists", json!("red")), QUEUE, &[("aws:PrincipalTag/team", "blue")], false),
        ("an absent key passes a negated operator", team("StringNotEquals", json!("red")), QUEUE, &[], true),
        ("none of several values", team("StringNotEquals", json!(["red", "blue"])), QUEUE, &[("aws:PrincipalTag/team", "blue")], false),
        ("case can be ignored", team("StringEqualsIgnoreCase", json!("RED")), QUEUE, &[("aws:PrincipalTag/team", "red")], true),
        ("StringEquals knows no wildcards", team("StringEquals", json!("r*")), QUEUE, &[("aws:PrincipalTag/team", "red")], false),
        ("StringLike does", team("StringLike", json!("r*d")), QUEUE, &[("aws:PrincipalTag/team", "red")], true),
        ("StringNotLike", team("StringNotLike", json!("r*")), QUEUE, &[("aws:PrincipalTag/team", "red")], false),
        ("all conditions must hold", when(json!({ "StringEquals": { "a:x": "1", "a:y": "2" } })), QUEUE, &[("a:x", "1")], false),
        // Booleans and existence.
        ("true", when(json!({ "Bool": { "aws:SecureTransport": "true" } })), QUEUE, &[("aws:SecureTransport", "true")], true),
        ("not true", when(json!({ "Bool": { "aws:SecureTransport": true } })), QUEUE, &[("aws:SecureTransport", "false")], false),
        ("must be absent, is", when(json!({ "Null": { "aws:TokenIssueTime": "true" } })), QUEUE, &[], true),
        ("must be absent, is not", when(json!({ "Null": { "aws:TokenIssueTime": "true" } })), QUEUE, &[("aws:TokenIssueTime", "t")], false),
        ("must exist, does", when(json!({ "Null": { "aws:TokenIssueTime": "false" } })), QUEUE, &[("aws:TokenIssueTime", "t")], true),
        ("must exist, does not", when(json!({ "Null": { "aws:TokenIssueTime": false } })), QUEUE, &[], false),
        // ARNs: ArnEquals and ArnLike are the same.
        ("an equal ARN", source("ArnEquals", TOPIC), QUEUE, &[("aws:SourceArn", TOPIC)], true),
        ("ArnEquals knows wildcards", source("ArnEquals", "arn:aws:sns:*:123456789012:TOPIC-*"), QUEUE, &[("aws:SourceArn", TOPIC)], true),
        ("ArnLike", source("ArnLike", "arn:aws:sns:*:123456789012:*"), QUEUE, &[("aws:SourceArn", TOPIC)], true),
        ("ArnLike looks part by part", source("ArnLike", "arn:aws:sns:*:TOPIC-ID"), QUEUE, &[("aws:SourceArn", TOPIC)], false),
        ("ArnNotLike", source("ArnNotLike", "arn:aws:sns:*:123456789012:*"), QUEUE, &[("aws:SourceArn", TOPIC)], false),
        // "Single-valued vs. multivalued context keys": the table of the page.
        ("all keys are among ours", keys("ForAllValues:StringEquals"), QUEUE, &[("aws:TagKeys", "environment"), ("aws:TagKeys", "webserver")], true),
        ("one key is not", keys("ForAllValues:StringEquals"), QUEUE, &[("aws:TagKeys", "environment"), ("aws:TagKeys", "costcenter")], false),
        ("all of none pass", keys("ForAllValues:StringEquals"), QUEUE, &[], true),
        ("any key is among ours", keys("ForAnyValue:StringEquals"), QUEUE, &[("aws:TagKeys", "environment"), ("aws:TagKeys", "costcenter")], true),
        ("no key is", keys("ForAnyValue:StringEquals"), QUEUE, &[("aws:TagKeys", "costcenter")], false),
        ("any of none fails", keys("ForAnyValue:StringEquals"), QUEUE, &[], false),
    ]
}

/// If the evaluator errs, every proof that rests on it is worthless.
#[test]
fn the_evaluator_decides_as_iam_documents_it() {
    for (what, statements, resource, context, allowed) in cases() {
        let policy = Policy::read(&json!({ "Version": "2012-10-17", "Statement": statements })).unwrap();
        let context = context.iter().fold(Context::default(), |all, (key, value)| all.with(key, value));
        let request = Request { action: "s:Do".to_owned(), resource: resource.to_owned(), context };
        assert_eq!(policy.evaluate(&request).is_allowed(), allowed, "{what}: {statements}");
    }
}

/// A part of a document that is passed over could be the one that denies.
#[test]
fn what_the_evaluator_does_not_know_is_an_error() {
    for statement in [
        json!({ "Effect": "Allow", "NotAction": "s:Do", "Resource": "*" }),
        json!({ "Effect": "Allow", "Action": "s:Do", "NotResource": "*" }),
        json!({ "Effect": "allow", "Action": "s:Do", "Resource": "*" }),
        json!({ "Effect": "Allow", "Action": { "a": 1 }, "Resource": "*" }),
        json!({ "Effect": "Allow", "Action": "s:Do", "Resource": "*", "Condition": { "NumericLessThan": { "a:b": "1" } } }),
        json!({ "Effect": "Allow", "Action": "s:Do", "Resource": "*", "Condition": { "StringEqual": { "a:b": "1" } } }),
    ] {
        assert!(Policy::read(&json!({ "Statement": [statement] })).is_err(), "{statement}");
    }
}
