//! A whole template: what the kinds render, in the order in which they need each other.
//!
//! Source: CloudFormation template reference, "Template anatomy".

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{anywhere::Anywhere, yaml};
use crate::draining::Draining;
use crate::environment::Environment;
use crate::kinds::{Blueprint, registry};
use crate::policy::{PolicyError, role_policies};
use crate::scope::{Function, Scope};
use crate::world::ResourceId;

/// A CloudFormation template. It names no account and no Region: the stack's are meant.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Template {
    #[serde(rename = "AWSTemplateFormatVersion")]
    format: &'static str,
    description: String,
    /// What whoever makes a stack may choose.
    pub parameters: BTreeMap<String, Parameter>,
    /// What a stack holds, by logical ID.
    pub resources: BTreeMap<String, Resource>,
    outputs: BTreeMap<&'static str, Value>,
    /// What the direct engine calls the resources, by logical ID; here the account and the Region are the environment's.
    #[serde(skip)]
    pub names: Names,
}

/// What the direct engine calls a stack's resources, by logical ID.
pub type Names = BTreeMap<String, ResourceId>;

/// Something that whoever makes a stack may choose; always a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Parameter {
    #[serde(rename = "Type")]
    kind: &'static str,
    description: String,
    /// What is taken where nothing is chosen; something has to be where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_pattern: Option<&'static str>,
}

/// One resource of a template.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Resource {
    #[serde(skip)]
    pub(super) id: String,
    #[serde(rename = "Type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    depends_on: BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_replace_policy: Option<&'static str>,
    pub(super) properties: Value,
}

impl Resource {
    /// A resource that goes with its stack. A property that is `null` is left out.
    pub fn new(id: impl Into<String>, kind: &'static str, properties: Value) -> Self {
        Self {
            id: id.into(),
            kind,
            depends_on: BTreeSet::new(),
            deletion_policy: None,
            update_replace_policy: None,
            properties: without_absent(properties),
        }
    }

    /// The same resource, with what becomes of it when it leaves the template, and of what it was before a replacement:
    /// `Delete`, `Retain`, or `RetainExceptOnCreate`.
    #[must_use]
    pub fn when_it_goes(self, deletion: &'static str, replacement: &'static str) -> Self {
        Self { deletion_policy: Some(deletion), update_replace_policy: Some(replacement), ..self }
    }
}

/// How a template is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As people read it.
    Yaml,
    /// As programs read it.
    Json,
}

impl Template {
    /// The template as short as it gets, as CloudFormation takes it.
    pub fn body(&self) -> String {
        self.document().to_string()
    }

    /// The template as data.
    pub fn document(&self) -> Value {
        json!(self)
    }

    /// The template's text; equal templates give equal bytes.
    pub fn text(&self, format: Format) -> String {
        let value = json!(self);
        match format {
            Format::Yaml => yaml::document(&value),
            Format::Json => format!("{value:#}\n"),
        }
    }
}

/// The parameter that names the bucket with the functions' zips.
pub const ARTIFACT_BUCKET: &str = "ArtifactBucket";

/// The parameter that names a function's zip in the bucket.
pub fn key_parameter(function: Function) -> String {
    logical_id(function.as_str(), "Key")
}

/// Where the zip with this `CodeSha256` is in the bucket. The content names it, so that a key never comes to mean
/// another code, and no upload can change what a stack or a saved plan refers to.
pub fn artifact_key(code_sha256: &str) -> String {
    let digest = STANDARD.decode(code_sha256).map_or_else(|_| code_sha256.to_owned(), hex::encode);
    format!("snapwarden/{digest}.zip")
}

/// The template of an environment with the given code in its functions.
pub fn template(
    environment: &Environment,
    code: &BTreeMap<Function, String>,
    draining: Option<Draining>,
) -> Result<Template, PolicyError> {
    rendered(environment, &Anywhere::apart_from(environment), code, draining)
}

/// The template of an environment that a StackSet brings to many accounts and Regions. Code comes from a bucket in each
/// Region, whose name ends in the Region's; what the file says of its own account is said of each account.
pub fn fleet_template(
    environment: &Environment,
    code: &BTreeMap<Function, String>,
) -> Result<Template, PolicyError> {
    let anywhere = Anywhere::apart_from(environment);
    let mut template = rendered(&anywhere.of_each_account(environment), &anywhere, code, None)?;
    for resource in template.resources.values_mut() {
        resource.properties = in_each_region(std::mem::take(&mut resource.properties));
    }
    if let Some(bucket) = template.parameters.get_mut(ARTIFACT_BUCKET) {
        "What the S3 buckets with the functions' zips are called, without the -REGION at their end"
            .clone_into(&mut bucket.description);
    }
    Ok(template)
}

/// A bucket has to be in the Region of the function.
fn in_each_region(value: Value) -> Value {
    if value == json!({ "Ref": ARTIFACT_BUCKET }) {
        return json!({ "Fn::Sub": format!("${{{ARTIFACT_BUCKET}}}-${{AWS::Region}}") });
    }
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, in_each_region(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other,
    }
}

fn rendered(
    environment: &Environment,
    anywhere: &Anywhere,
    code: &BTreeMap<Function, String>,
    draining: Option<Draining>,
) -> Result<Template, PolicyError> {
    let scope = anywhere.scope(environment);
    let policies = role_policies(environment, &scope)?;
    let blueprint = Blueprint { environment, scope: &scope, policies: &policies, code, draining };
    let rendered = registry().render(&blueprint);
    // What others need is the resource that has the name.
    let ids: BTreeMap<&ResourceId, &str> = rendered
        .iter()
        .filter_map(|(resource, parts)| Some((resource, parts.first()?.id.as_str())))
        .collect();
    let (mut resources, mut names) = (BTreeMap::new(), BTreeMap::new());
    for (resource, parts) in &rendered {
        let needs = registry().needs(resource, &scope);
        let needs = needs.iter().filter_map(|need| ids.get(need)).map(|id| (*id).to_owned());
        let needs: BTreeSet<String> = needs.collect();
        for (index, part) in parts.iter().enumerate() {
            let properties = anywhere.with_pseudo_parameters(part.properties.clone());
            let part = Resource { depends_on: needs.clone(), properties, ..part.clone() };
            let name = anywhere.at_home(&resource.name, environment);
            // What only belongs to a resource goes by CloudFormation's name for it.
            let kind = if index == 0 { resource.kind.as_str() } else { part.kind };
            names.insert(part.id.clone(), ResourceId::new(kind, name));
            resources.insert(part.id.clone(), part);
        }
    }
    let outputs = outputs(&scope)
        .map(|(name, description, value)| {
            let value = anywhere.with_pseudo_parameters(json!(value));
            (name, json!({ "Description": description, "Value": value }))
        })
        .into();
    Ok(Template {
        format: "2010-09-09",
        description: format!("Snapwarden {}: EC2 backups that prove themselves.", scope.environment),
        parameters: parameters(code),
        resources,
        outputs,
        names,
    })
}

fn parameters(code: &BTreeMap<Function, String>) -> BTreeMap<String, Parameter> {
    let bucket = Parameter {
        kind: "String",
        description: "The S3 bucket with the functions' zips, in the Region of the stack".to_owned(),
        default: None,
        allowed_pattern: Some("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"),
    };
    let keys = code.iter().map(|(function, code_sha256)| {
        let key = Parameter {
            kind: "String",
            description: format!("The {} function's zip in the bucket", function.as_str()),
            default: Some(artifact_key(code_sha256)),
            allowed_pattern: None,
        };
        (key_parameter(*function), key)
    });
    keys.chain([(ARTIFACT_BUCKET.to_owned(), bucket)]).collect()
}

/// What people and other stacks refer to.
fn outputs(scope: &Scope) -> [(&'static str, &'static str, String); 5] {
    [
        ("BackupAlias", "The released backup function", scope.alias_arn(Function::Backup)),
        ("CleanupAlias", "The released cleanup function", scope.alias_arn(Function::Cleanup)),
        ("DeadLetterQueue", "Keeps the events of runs that were given up", scope.dead_letter_queue_arn()),
        ("Topic", "Tells of alarms and failed runs", scope.topic_arn()),
        ("Dashboard", "The dashboard's name in CloudWatch", scope.dashboard()),
    ]
}

/// A logical ID, which may hold letters and digits only: `BackupErrorsAlarm` of `backup-errors` and `Alarm`.
pub fn logical_id(name: &str, what: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    });
    words.collect::<String>() + what
}

/// CloudFormation refuses `null`.
fn without_absent(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_absent(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other,
    }
}

/// Tags as most resources take them.
pub fn tags(tags: &BTreeMap<String, String>) -> Value {
    tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect::<Vec<_>>().into()
}
