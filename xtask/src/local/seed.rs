//! Instances to try the backups on.

use std::collections::BTreeMap;
use std::fmt;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, Filter, Instance, InstanceType, ResourceType, Tag, TagSpecification,
    VolumeType,
};
use serde::Serialize;
use snapwarden_domain::settings::Selector;

use crate::failure::{Exit, Failure};

/// Makes the instances that are not there yet, told by their `Name` tags, and says what there is. `select` is the tag
/// that the backup goes by.
pub(crate) async fn seed(ec2: &Client, select: &Selector) -> Result<Seeded, SeedError> {
    let mut instances = Vec::with_capacity(MACHINES.len());
    for machine in &MACHINES {
        let (instance, made) = match find(ec2, machine).await? {
            Some(instance) => (instance, false),
            None => (run(ec2, machine, select).await?, true),
        };
        instances.push(describe(ec2, machine, &instance, made).await?);
    }
    Ok(Seeded { instances })
}

/// The instances, those made now and those that were there.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Seeded {
    instances: Vec<SeededInstance>,
}

/// One instance.
#[derive(Clone, Debug, Serialize)]
struct SeededInstance {
    instance: String,
    name: &'static str,
    made: bool,
    tags: BTreeMap<String, String>,
    volumes: Vec<Volume>,
}

/// One volume of an instance.
#[derive(Clone, Debug, Serialize)]
struct Volume {
    #[serde(rename = "volume")]
    id: String,
    device: String,
    size_gib: i32,
}

/// An instance to make.
struct Machine {
    name: &'static str,
    /// Whether the backup is to select it.
    backup: bool,
    /// Device and size in GiB; the first is the one it starts from.
    volumes: &'static [(&'static str, i32)],
}

/// One instance with one volume, one with two, which a backup must take at the same moment, and one that a backup
/// must leave alone.
const MACHINES: [Machine; 3] = [
    Machine { name: "web-1", backup: true, volumes: &[("/dev/xvda", 8)] },
    Machine { name: "db-1", backup: true, volumes: &[("/dev/xvda", 8), ("/dev/sdf", 20)] },
    Machine { name: "scratch-1", backup: false, volumes: &[("/dev/xvda", 8)] },
];

/// The emulator has no images and accepts any well-formed id.
const IMAGE: &str = "ami-0123456789abcdef0";

impl Machine {
    fn tags(&self, select: &Selector) -> Vec<Tag> {
        let mut tags = vec![tag("Name", self.name)];
        if self.backup {
            tags.push(tag(&select.tag, &select.value));
        }
        tags
    }

    fn mappings(&self) -> Vec<BlockDeviceMapping> {
        let mapping = |&(device, size): &(&str, i32)| {
            let disk = EbsBlockDevice::builder().volume_size(size).volume_type(VolumeType::Gp3).build();
            BlockDeviceMapping::builder().device_name(device).ebs(disk).build()
        };
        self.volumes.iter().map(mapping).collect()
    }
}

async fn find(ec2: &Client, machine: &Machine) -> Result<Option<Instance>, SeedError> {
    let living = Filter::builder()
        .name("instance-state-name")
        .set_values(Some(["pending", "running", "stopping", "stopped"].map(String::from).to_vec()))
        .build();
    let pages = ec2
        .describe_instances()
        .filters(Filter::builder().name("tag:Name").values(machine.name).build())
        .filters(living)
        .into_paginator()
        .send()
        .try_collect()
        .await
        .map_err(SeedError::during("look for", machine))?;
    let reservations = pages.into_iter().flat_map(|page| page.reservations.unwrap_or_default());
    Ok(reservations.flat_map(|reservation| reservation.instances.unwrap_or_default()).next())
}

async fn run(ec2: &Client, machine: &Machine, select: &Selector) -> Result<Instance, SeedError> {
    let tagged = |kind: ResourceType, tags: Vec<Tag>| {
        TagSpecification::builder().resource_type(kind).set_tags(Some(tags)).build()
    };
    let reservation = ec2
        .run_instances()
        .image_id(IMAGE)
        .instance_type(InstanceType::T4gMicro)
        .min_count(1)
        .max_count(1)
        .set_block_device_mappings(Some(machine.mappings()))
        .tag_specifications(tagged(ResourceType::Instance, machine.tags(select)))
        .tag_specifications(tagged(ResourceType::Volume, vec![tag("Name", machine.name)]))
        .send()
        .await
        .map_err(SeedError::during("start", machine))?;
    let instance = reservation.instances.unwrap_or_default().into_iter().next();
    instance.ok_or(SeedError::NothingStarted { name: machine.name })
}

async fn describe(
    ec2: &Client,
    machine: &Machine,
    instance: &Instance,
    made: bool,
) -> Result<SeededInstance, SeedError> {
    let id = instance.instance_id().unwrap_or_default();
    let pages = ec2
        .describe_volumes()
        .filters(Filter::builder().name("attachment.instance-id").values(id).build())
        .into_paginator()
        .send()
        .try_collect()
        .await
        .map_err(SeedError::during("list the volumes of", machine))?;
    let mut volumes: Vec<Volume> = pages
        .into_iter()
        .flat_map(|page| page.volumes.unwrap_or_default())
        .map(|volume| Volume {
            id: volume.volume_id().unwrap_or_default().to_owned(),
            device: volume.attachments().iter().find_map(|at| at.device()).unwrap_or_default().to_owned(),
            size_gib: volume.size().unwrap_or_default(),
        })
        .collect();
    volumes.sort_by(|a, b| (a.size_gib, &a.device).cmp(&(b.size_gib, &b.device)));
    let tags = instance.tags().iter();
    let tags = tags.map(|tag| (text(tag.key()), text(tag.value()))).collect();
    Ok(SeededInstance { instance: id.to_owned(), name: machine.name, made, tags, volumes })
}

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build()
}

fn text(value: Option<&str>) -> String {
    value.unwrap_or_default().to_owned()
}

impl fmt::Display for Seeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for seeded in &self.instances {
            let tags: Vec<String> = seeded.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let made = if seeded.made { "made" } else { "there already" };
            writeln!(f, "{:10} {}  {made}  {}", seeded.name, seeded.instance, tags.join(" "))?;
            for Volume { id, device, size_gib } in &seeded.volumes {
                writeln!(f, "{:10}   {id}  {device}  {size_gib} GiB", "")?;
            }
        }
        let made = self.instances.iter().filter(|seeded| seeded.made).count();
        match made {
            0 => write!(f, "nothing was made: all {} instances were there already", self.instances.len()),
            1 => write!(f, "1 instance made"),
            _ => write!(f, "{made} instances made"),
        }
    }
}

/// Why an instance could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeedError {
    /// EC2 did not do as it was asked.
    #[error("cannot {action} the instance {name}")]
    Call {
        /// What was asked, such as `start`.
        action: &'static str,
        /// The instance's `Name` tag.
        name: &'static str,
        /// What it answered.
        source: Box<aws_sdk_ec2::Error>,
    },
    /// EC2 accepted the request and named no instance.
    #[error("EC2 started no instance {name}, without an error")]
    NothingStarted {
        /// The instance's `Name` tag.
        name: &'static str,
    },
}

impl SeedError {
    fn during<E: Into<aws_sdk_ec2::Error>>(
        action: &'static str,
        machine: &Machine,
    ) -> impl FnOnce(E) -> Self {
        let name = machine.name;
        move |error| Self::Call { action, name, source: Box::new(error.into()) }
    }
}

impl From<SeedError> for Failure {
    fn from(error: SeedError) -> Self {
        Self::caused_by(Exit::Failed, &error)
            .hint("`cargo xtask local status` says whether the local environment runs and where its logs are")
    }
}
