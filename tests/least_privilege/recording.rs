//! Every call that the functions and the commands make, recorded once for all proofs, with what IAM knew at the time.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use aws_sdk_ec2::types::{InstanceType, Reservation, ResourceType, Tag, TagSpecification};
use aws_sdk_iam::types::Tag as RoleTag;
use aws_sdk_kms::types::Tag as KeyTag;
use snapwarden_deployer::aws::Aws;
use snapwarden_deployer::environment::{Environment, parse};
use snapwarden_deployer::scope::Scope;
use snapwarden_tests::proxy::{Call, Calls, Effect, Proxy, Rule};
use snapwarden_tests::{Local, Snapshot, block_on, bundle};

use crate::authorization::World;

/// What was recorded.
pub(crate) struct Recording {
    /// What the functions did, by the name of the function and of what it was asked to do.
    pub(crate) functions: Vec<Run>,
    /// What the commands did.
    pub(crate) commands: Vec<Run>,
    /// What restores and drills did.
    pub(crate) restores: Vec<Run>,
}

/// One run of a function, or of a command.
pub(crate) struct Run {
    /// `backup` or `cleanup`, or the command.
    pub(crate) of: String,
    /// The environment's file at the time.
    pub(crate) environment: Environment,
    /// What IAM knew.
    pub(crate) world: World,
    pub(crate) calls: Vec<Call>,
}

/// The recording.
pub(crate) static RECORDING: LazyLock<Recording> = LazyLock::new(record);

/// What the commands did to an environment whose engine is CloudFormation.
pub(crate) static STACK: LazyLock<Vec<Run>> = LazyLock::new(record_stack);

/// Takes a stack through its whole life.
fn record_stack() -> Vec<Run> {
    let engine = "engine: cloudformation\n\
                  cloudformation: { role: \"arn:aws:iam::123456789012:role/cloudformation\" }\nlogs: delete";
    let local = Local::with("logs: delete", engine);
    local.ok(&["local", "up"]);
    let mut recorder = Recorder::of(local);
    recorder.command(&["plan", "--bundle", &bundle()]);
    recorder.deploy();
    recorder.command(&["plan", "--drift", "--bundle", &bundle()]);
    recorder.local.edit("memory_mb: 256", "memory_mb: 512");
    recorder.local.edit("logs: delete", "protect: true\nlogs: delete");
    recorder.deploy();
    recorder.command(&["rollback"]);
    recorder.command(&["status"]);
    recorder.command(&["destroy", "--drain", "--confirm", "local"]);
    recorder.command(&["destroy", "--confirm", "local"]);
    recorder.recording.commands
}

/// Takes the environment through its whole life.
fn record() -> Recording {
    // No floor, so that there is something to delete, and roles that are not where IAM puts them by itself.
    let local = Local::with("floor: 1", "floor: 0");
    local.edit("logs: delete", "iam: { role_path: /backups/, role_name_prefix: acme- }\nlogs: delete");
    // Sealing, so that its rights are there and used.
    let encryption =
        format!("encryption: {{ require: enforce, kms_key: \"{KEY}\", at_rest: true }}\nlogs: delete");
    local.edit("logs: delete", &encryption);
    // Few releases, so that there are versions to delete.
    local.edit("logs: delete", "releases: { keep: 2 }\nlogs: delete");
    let mut recorder = Recorder::of(local);
    recorder.command(&["plan", "--bundle", &bundle()]);
    recorder.deploy();
    recorder.local.json(&["local", "seed"]);
    recorder.function("backup", &["--dry-run"]);
    recorder.function("backup", &[]);
    recorder.local.tag(&recorder.local.snapshots()[0].id, "DeleteOn", &today());
    recorder.function("cleanup", &["--dry-run"]);
    recorder.function("cleanup", &[]);
    recorder.function("seal", &["--dry-run"]);
    // One begins the copies, one deletes what they are of.
    recorder.function("seal", &[]);
    recorder.function("seal", &[]);
    recorder.restores();
    recorder.long_runs();
    recorder.command(&["status"]);
    for function in ["backup", "cleanup"] {
        recorder.stale_event(function);
    }
    recorder.lost_run();
    recorder.changes();
    recorder.command(&["destroy", "--drain", "--yes"]);
    recorder.command(&["destroy", "--snapshots", "purge", "--yes"]);
    recorder.own_key();
    recorder.recording
}

/// What seals the snapshots.
pub(crate) const KEY: &str = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn today() -> String {
    jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date().to_string()
}

/// More instances than a slow backup snapshots in one invocation.
const FLEET: i32 = 90;

/// More snapshots than a slow cleanup deletes in one invocation, and not so many that it stops for fear of a mistake.
const EXPIRED: usize = 20;

fn more_instances(aws: &Aws) {
    let tag = Tag::builder().key("Backup").value("true").build();
    let tags = TagSpecification::builder().resource_type(ResourceType::Instance).tags(tag).build();
    let call = aws.ec2.run_instances().image_id("ami-0123456789abcdef0").instance_type(InstanceType::T3Micro);
    block_on(call.min_count(FLEET).max_count(FLEET).tag_specifications(tags).send()).unwrap();
}

struct Recorder {
    local: Local,
    functions: Proxy,
    commands: Proxy,
    recording: Recording,
}

impl Recorder {
    fn of(local: Local) -> Self {
        Self {
            functions: Proxy::of_functions(&local),
            commands: Proxy::of(&local),
            local,
            recording: Recording { functions: Vec::new(), commands: Vec::new(), restores: Vec::new() },
        }
    }

    fn deploy(&mut self) {
        self.command(&["deploy", "--bundle", &bundle()]);
    }

    /// Everything that a deploy can be asked to change, or finds changed by hand.
    fn changes(&mut self) {
        for (from, to) in [
            ("memory_mb: 256", "memory_mb: 512"),
            ("cron(0 2 * * ? *)", "cron(0 1 * * ? *)"),
            ("log_retention_days: 30", "log_retention_days: 90"),
            ("project: snapwarden", "stage: test"),
            ("tag: Backup", "tag: Nightly"),
            ("logs: delete", "notify: { emails: [ops@example.org] }\nlogs: delete"),
        ] {
            self.local.edit(from, to);
        }
        self.deploy();
        by_hand(&self.local.aws(), &self.environment());
        self.deploy();
        self.local.edit("emails: [ops@example.org]", "emails: []");
        self.deploy();
        self.local.edit("emails: []", "emails: [dev@example.org]");
        self.deploy();
        self.command(&["plan", "--bundle", &bundle()]);
        let page = self.local.path("backups.html").display().to_string();
        self.command(&["report", "--out", &page]);
        let boundary = "iam: { permissions_boundary: arn:aws:iam::123456789012:policy/limits, ";
        self.local.edit("iam: { ", boundary);
        self.deploy();
        self.local.edit(boundary, "iam: { ");
        self.deploy();
        self.command(&["rollback"]);
        self.command(&["releases"]);
    }

    /// Another life, with a key that the deploy makes, finds changed, takes up again and ends.
    fn own_key(&mut self) {
        self.local.edit(&format!("kms_key: \"{KEY}\""), "kms_key: { create: true }");
        self.deploy();
        let kms = self.local.aws().kms;
        let alias = Scope::of(&self.environment()).key_alias();
        let described = block_on(kms.describe_key().key_id(&alias).send()).unwrap();
        let id = described.key_metadata.unwrap().key_id;
        let tag = KeyTag::builder().tag_key("owner").tag_value("eve").build().unwrap();
        block_on(async {
            kms.tag_resource().key_id(&id).tags(tag).send().await.unwrap();
            kms.untag_resource().key_id(&id).tag_keys("stage").send().await.unwrap();
            kms.disable_key_rotation().key_id(&id).send().await.unwrap();
            kms.update_key_description().key_id(&id).description("mine").send().await.unwrap();
            let policy = kms.put_key_policy().key_id(&id).policy_name("default").policy("{}");
            policy.send().await.unwrap();
            kms.delete_alias().alias_name(&alias).send().await.unwrap();
            kms.schedule_key_deletion().key_id(&id).send().await.unwrap();
        });
        self.deploy();
        self.local.edit("memory_mb: 512", "memory_mb: 256");
        self.deploy();
        self.command(&["plan", "--bundle", &bundle()]);
        self.command(&["destroy", "--snapshots", "purge", "--yes"]);
    }

    /// An event that was given up, and the run that somebody starts in its place.
    fn lost_run(&mut self) {
        let sqs = self.local.aws().sqs;
        let queue = Scope::of(&self.environment()).dead_letter_queue();
        let url = block_on(sqs.get_queue_url().queue_name(queue).send()).unwrap().queue_url.unwrap();
        block_on(sqs.send_message().queue_url(url).message_body("{}").send()).unwrap();
        self.command(&["dead-letters", "--purge"]);
        self.command(&["invoke", "cleanup", "--dry-run"]);
    }

    /// Runs that take longer than one invocation, and hand on to the next.
    fn long_runs(&mut self) {
        self.local.edit("timeout_seconds: 900", "timeout_seconds: 16");
        self.deploy();
        more_instances(&self.local.aws());
        let slow = |action| Rule::first(10_000, Calls::Action(action), Effect::Delay(Duration::from_secs(6)));
        self.functions.rule(vec![slow("ec2:CreateSnapshots"), slow("ec2:DeleteSnapshot")]);
        self.function("backup", &[]);
        let expired = self.local.snapshots().into_iter().take(EXPIRED).map(|snapshot| snapshot.id);
        let today = Tag::builder().key("DeleteOn").value(today()).build();
        let call = self.local.aws().ec2.create_tags().set_resources(Some(expired.collect())).tags(today);
        block_on(call.send()).unwrap();
        self.function("cleanup", &[]);
        self.functions.rule(Vec::new());
    }

    /// A restore and a drill, which somebody else than the deployer may do.
    fn restores(&mut self) {
        let snapshots = self.local.snapshots();
        let is_of_a_whole_set = |one: &&Snapshot| {
            let of_it = |other: &&Snapshot| {
                ["snapwarden:instance", "snapwarden:run"].iter().all(|key| other.tag(key) == one.tag(key))
            };
            one.tag("snapwarden:volumes") == snapshots.iter().filter(of_it).count().to_string()
        };
        let snapshot = snapshots.iter().find(is_of_a_whole_set).expect("a whole set is left");
        let instance = snapshot.tag("snapwarden:instance").to_owned();
        self.restore(&["restore", "plan", "--instance", &instance]);
        self.restore(&["restore", "run", "--instance", &instance, "--yes"]);
        self.restore(&["restore", "drill", "--yes"]);
    }

    fn restore(&mut self, arguments: &[&str]) {
        self.command(arguments);
        self.recording.restores.extend(self.recording.commands.pop());
    }

    fn command(&mut self, arguments: &[&str]) {
        let (environment, world) = (self.environment(), self.world());
        let ran = self.commands.run(&self.local, arguments, Vec::new());
        assert_eq!(ran.code, 0, "{ran:?}");
        let calls = self.commands.calls();
        self.recording.commands.push(Run { of: arguments.join(" "), environment, world, calls });
    }

    fn function(&mut self, function: &str, flags: &[&str]) {
        let (environment, world) = (self.environment(), self.world());
        let before = self.functions.calls().len();
        let ran = self.local.run(&[&["invoke", function], flags].concat());
        // 6: it goes on by itself.
        assert!([0, 6].contains(&ran.code), "{ran:?}");
        self.wait_for_the_last_hop();
        let calls = self.functions.calls().split_off(before);
        assert!(!calls.is_empty(), "the proxy saw no call of {function}");
        // Sealing is a task of the cleanup function.
        let of = if function == "seal" { "cleanup" } else { function };
        self.recording.functions.push(Run { of: of.to_owned(), environment, world, calls });
    }

    /// An event that comes years late fails, and people are told of it.
    fn stale_event(&mut self, function: &str) {
        let (environment, world) = (self.environment(), self.world());
        let before = self.functions.calls().len();
        let event =
            format!(r#"{{"scheduled_at":"2020-01-01T00:00:00Z","schedule":"snapwarden-local/{function}"}}"#);
        let lambda = self.local.aws().lambda;
        let call = lambda.invoke().function_name(format!("snapwarden-local-{function}:live"));
        let answer = block_on(call.payload(aws_sdk_lambda::primitives::Blob::new(event)).send()).unwrap();
        assert!(answer.function_error().is_some(), "{answer:?}");
        let calls = self.functions.calls().split_off(before);
        self.recording.functions.push(Run { of: function.to_owned(), environment, world, calls });
    }

    /// Until the functions make no more calls, and none is late.
    fn wait_for_the_last_hop(&self) {
        let mut seen = 0;
        while self.functions.calls().len() > seen {
            seen = self.functions.calls().len();
            let handed_on = self.functions.calls().iter().any(|call| call.action == "lambda:InvokeFunction");
            std::thread::sleep(if handed_on { Duration::from_secs(9) } else { Duration::ZERO });
        }
    }

    fn environment(&self) -> Environment {
        let path = self.local.path("environments/local.yaml");
        parse(&path, &std::fs::read_to_string(&path).unwrap()).unwrap()
    }

    fn world(&self) -> World {
        let ec2 = self.local.aws().ec2;
        let instances = block_on(ec2.describe_instances().send()).unwrap();
        let listed = block_on(ec2.describe_volumes().send()).unwrap();
        let mut tags = BTreeMap::<_, BTreeMap<_, _>>::new();
        let mut volumes = BTreeMap::<_, Vec<_>>::new();
        let mut add = |id: &str, found: &[Tag]| {
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            let found = found.iter().map(|tag| (text(tag.key()), text(tag.value())));
            tags.insert(id.to_owned(), found.collect());
        };
        for instance in instances.reservations().iter().flat_map(Reservation::instances) {
            add(instance.instance_id().unwrap(), instance.tags());
        }
        for volume in listed.volumes() {
            let id = volume.volume_id().unwrap();
            add(id, volume.tags());
            for attached in volume.attachments().iter().filter_map(|attachment| attachment.instance_id()) {
                volumes.entry(attached.to_owned()).or_default().push(id.to_owned());
            }
        }
        for snapshot in self.local.snapshots() {
            tags.insert(snapshot.id, snapshot.tags);
        }
        let restored_by = self.environment().environment.to_string();
        World { scope: Scope::of(&self.environment()), tags, volumes, restored_by }
    }
}

/// What somebody changes in the console, and a deploy takes back.
fn by_hand(aws: &Aws, environment: &Environment) {
    const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Sid":"Eve","Effect":"Allow",
        "Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::666666666666:root"}}]}"#;
    const EXTRA: &str = r#"{"Version":"2012-10-17","Statement":[{"Sid":"All","Effect":"Allow",
        "Action":"*","Resource":"*"}]}"#;
    const ADMIN: &str = "arn:aws:iam::aws:policy/AdministratorAccess";
    let scope = Scope::of(environment);
    let (role, function) = (scope.role("backup"), "snapwarden-local-backup");
    let tag = RoleTag::builder().key("owner").value("eve").build().unwrap();
    block_on(async {
        let (iam, lambda) = (&aws.iam, &aws.lambda);
        iam.tag_role().role_name(&role).tags(tag).send().await.unwrap();
        iam.update_role().role_name(&role).description("mine").send().await.unwrap();
        iam.attach_role_policy().role_name(&role).policy_arn(ADMIN).send().await.unwrap();
        iam.update_assume_role_policy().role_name(&role).policy_document(TRUST).send().await.unwrap();
        let extra = iam.put_role_policy().role_name(&role).policy_name("extra");
        extra.policy_document(EXTRA).send().await.unwrap();

        let other = std::fs::read(std::path::Path::new(&bundle()).join("cleanup.zip")).unwrap();
        lambda.update_function_code().function_name(function).zip_file(other.into()).send().await.unwrap();
        for (sid, qualifier) in [("eve", None), ("mallory", Some("live"))] {
            let permission = lambda.add_permission().function_name(function).statement_id(sid);
            let permission = permission.action("lambda:InvokeFunction").principal("666666666666");
            permission.set_qualifier(qualifier.map(str::to_owned)).send().await.unwrap();
        }
        let limit = lambda.put_function_concurrency().function_name(function);
        limit.reserved_concurrent_executions(0).send().await.unwrap();
        let settings = lambda.put_function_event_invoke_config().function_name(function).qualifier("live");
        settings.maximum_retry_attempts(0).send().await.unwrap();

        let queue = aws.sqs.get_queue_url().queue_name(scope.dead_letter_queue()).send().await.unwrap();
        let retention = aws_sdk_sqs::types::QueueAttributeName::MessageRetentionPeriod;
        let set = aws.sqs.set_queue_attributes().set_queue_url(queue.queue_url);
        set.attributes(retention, "60").send().await.unwrap();

        let (sns, topic) = (&aws.sns, scope.topic_arn());
        let named = sns.set_topic_attributes().topic_arn(&topic).attribute_name("DisplayName");
        named.attribute_value("mine").send().await.unwrap();
        let listed = sns.list_subscriptions_by_topic().topic_arn(&topic).send().await.unwrap();
        let subscription = listed.subscriptions()[0].subscription_arn().unwrap();
        let filter = sns.set_subscription_attributes().subscription_arn(subscription);
        let filter = filter.attribute_name("FilterPolicy").attribute_value(r#"{"to":["eve"]}"#);
        filter.send().await.unwrap();
    });
}
