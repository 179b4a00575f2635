//! An EC2 with instances and snapshots and nothing else, quick enough that not its own time is what is measured: moto
//! answers 270 requests a second, and lists 2,000 instances in five.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use serde_json::Value;
use snapwarden_proxy::Call;

use super::http::Server;

/// The account's EC2, and the server that answers for it.
#[derive(Debug)]
pub(super) struct Cloud {
    account: Arc<Mutex<Account>>,
    server: Server,
}

#[derive(Debug, Default)]
struct Account {
    /// Instances with their volumes.
    instances: BTreeMap<String, Vec<String>>,
    /// By number, which is also their age: the first was made first.
    snapshots: BTreeMap<usize, Snapshot>,
    by_volume: BTreeMap<String, Vec<usize>>,
    made: usize,
    /// How many runs there have been.
    runs: usize,
}

#[derive(Clone, Debug)]
struct Snapshot {
    volume: String,
    tags: BTreeMap<String, String>,
}

impl Cloud {
    /// Starts one with so many instances that the tag `Backup=true` selects.
    pub(super) fn with_instances(instances: usize, volumes_each: usize) -> io::Result<Self> {
        let mut account = Account::default();
        for number in 0..instances {
            let volumes = (0..volumes_each).map(|volume| format!("vol-{number:014x}{volume:03x}")).collect();
            account.instances.insert(format!("i-{number:017x}"), volumes);
        }
        let account = Arc::new(Mutex::new(account));
        let server = Server::start({
            let account = Arc::clone(&account);
            move |head, body| {
                let call = Call::of(&head, &body);
                let answer = lock(&account).answer(&call);
                Box::pin(async move { answer })
            }
        })?;
        Ok(Self { account, server })
    }

    /// Its address.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// How many snapshots there are.
    pub(super) fn snapshots(&self) -> usize {
        lock(&self.account).snapshots.len()
    }

    /// Makes a snapshot of every volume, `sets` times, as earlier runs of the environment `local` would have.
    pub(super) fn make_sets(&self, sets: usize, delete_on: &str) {
        let mut account = lock(&self.account);
        let volumes: Vec<(String, String)> = account
            .instances
            .iter()
            .flat_map(|(instance, volumes)| volumes.iter().map(|volume| (instance.clone(), volume.clone())))
            .collect();
        for _ in 0..sets {
            let (hour, day, year) =
                (account.runs % 24, 1 + account.runs / 24 % 28, 2020 + account.runs / (24 * 28));
            account.runs += 1;
            for (instance, volume) in &volumes {
                let tags = [
                    ("DeleteOn", delete_on.to_owned()),
                    ("snapwarden:environment", "local".to_owned()),
                    ("snapwarden:instance", instance.clone()),
                    ("snapwarden:run", format!("backup@{year}-01-{day:02}T{hour:02}:00:00Z")),
                ];
                let tags = tags.map(|(key, value)| (key.to_owned(), value)).into();
                account.add(volume.clone(), tags);
            }
        }
    }
}

fn lock(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a list is narrowed by: names with the values that they may have.
type Filters<'a> = Vec<(&'a str, Vec<&'a str>)>;

impl Account {
    fn add(&mut self, volume: String, tags: BTreeMap<String, String>) -> usize {
        self.made += 1;
        self.by_volume.entry(volume.clone()).or_default().push(self.made);
        self.snapshots.insert(self.made, Snapshot { volume, tags });
        self.made
    }

    fn answer(&mut self, call: &Call) -> Response<Full<Bytes>> {
        let action = call.action.strip_prefix("ec2:").unwrap_or_default();
        let field = |name: &str| call.parameters.get(name).and_then(Value::as_str).unwrap_or_default();
        let dry_run = field("DryRun") == "true";
        let content = match action {
            _ if dry_run => return refused(412, "DryRunOperation"),
            "DescribeInstances" => self.instances(call),
            "DescribeVolumes" => self.volumes(call),
            "DescribeSnapshots" => self.list(call),
            "DescribeImages" => "<imagesSet/>".to_owned(),
            "DescribeLockedSnapshots" => "<snapshotSet/>".to_owned(),
            "CreateSnapshots" => {
                let volumes = self.instances.get(field("InstanceSpecification.InstanceId")).cloned();
                let tags = tags(call, "TagSpecification.1.Tag");
                let numbers = volumes.into_iter().flatten().map(|volume| self.add(volume, tags.clone()));
                let numbers: Vec<usize> = numbers.collect();
                let items = numbers.iter().map(|number| self.item(*number, "state")).collect::<String>();
                format!("<snapshotSet>{items}</snapshotSet>")
            }
            "CreateSnapshot" => {
                let number = self.add(field("VolumeId").to_owned(), tags(call, "TagSpecification.1.Tag"));
                self.fields(number, "status")
            }
            "CreateTags" => {
                let number = number_of(field("ResourceId.1"));
                if let Some(snapshot) = number.and_then(|number| self.snapshots.get_mut(&number)) {
                    snapshot.tags.extend(tags(call, "Tag"));
                }
                "<return>true</return>".to_owned()
            }
            "DeleteSnapshot" => {
                let gone = number_of(field("SnapshotId")).and_then(|number| self.snapshots.remove(&number));
                if gone.is_none() {
                    return refused(400, "InvalidSnapshot.NotFound");
                }
                "<return>true</return>".to_owned()
            }
            _ => return refused(400, "InvalidAction"),
        };
        response(200, format!("<{action}Response><requestId>r</requestId>{content}</{action}Response>"))
    }

    fn instances(&self, call: &Call) -> String {
        let (from, most) = page(call);
        let mut items = String::new();
        for (index, (id, volumes)) in self.instances.iter().enumerate().skip(from).take(most) {
            let mut devices = String::new();
            for (number, volume) in volumes.iter().enumerate() {
                let device = if number == 0 { "/dev/xvda".to_owned() } else { format!("/dev/sd{number}") };
                let _ = write!(
                    devices,
                    "<item><deviceName>{device}</deviceName><ebs><volumeId>{volume}</volumeId><status>attached\
                     </status><attachTime>2026-01-01T00:00:00.000Z</attachTime></ebs></item>"
                );
            }
            let _ = write!(
                items,
                "<item><reservationId>r-{index}</reservationId><instancesSet><item><instanceId>{id}</instanceId>\
                 <instanceState><code>16</code><name>running</name></instanceState><rootDeviceName>/dev/xvda\
                 </rootDeviceName><blockDeviceMapping>{devices}</blockDeviceMapping><tagSet><item><key>Backup</key>\
                 <value>true</value></item></tagSet></item></instancesSet></item>"
            );
        }
        let next = next(from + most, self.instances.len());
        format!("<reservationSet>{items}</reservationSet>{next}")
    }

    fn volumes(&self, call: &Call) -> String {
        let filters = filters(call);
        let wanted = filters.iter().find(|(name, _)| *name == "attachment.instance-id").map(|(_, ids)| ids);
        let (from, most) = page(call);
        let all: Vec<(&String, &String)> = self
            .instances
            .iter()
            .filter(|(id, _)| wanted.is_none_or(|wanted| wanted.contains(&id.as_str())))
            .flat_map(|(id, volumes)| volumes.iter().map(move |volume| (id, volume)))
            .collect();
        let mut items = String::new();
        for (instance, volume) in all.iter().skip(from).take(most) {
            let _ = write!(
                items,
                "<item><volumeId>{volume}</volumeId><size>8</size><availabilityZone>eu-central-1a</availabilityZone>\
                 <volumeType>gp3</volumeType><status>in-use</status><attachmentSet><item><volumeId>{volume}</volumeId>\
                 <instanceId>{instance}</instanceId><status>attached</status></item></attachmentSet></item>"
            );
        }
        format!("<volumeSet>{items}</volumeSet>{}", next(from + most, all.len()))
    }

    fn list(&self, call: &Call) -> String {
        let filters = filters(call);
        let (from, most) = page(call);
        let values =
            |wanted: &str| filters.iter().find(|(name, _)| *name == wanted).map(|(_, values)| values);
        let fits = |snapshot: &Snapshot| {
            filters.iter().all(|(name, values)| {
                let tag = name.strip_prefix("tag:").and_then(|key| snapshot.tags.get(key));
                !name.starts_with("tag:") || tag.is_some_and(|tag| values.contains(&tag.as_str()))
            })
        };
        // Few snapshots by what they are of, or all of them.
        let few: Option<Vec<usize>> = match (values("volume-id"), values("snapshot-id")) {
            (Some(volumes), _) => Some(
                volumes.iter().filter_map(|volume| self.by_volume.get(*volume)).flatten().copied().collect(),
            ),
            (_, Some(ids)) => Some(ids.iter().filter_map(|id| number_of(id)).collect()),
            _ => None,
        };
        let mut found: Box<dyn Iterator<Item = usize>> = match &few {
            Some(few) => Box::new(few.iter().copied().filter(|number| *number > from)),
            None => Box::new(self.snapshots.range(from + 1..).map(|(number, _)| *number)),
        };
        let (mut items, mut last, mut count) = (String::new(), from, 0);
        for number in found.by_ref() {
            if self.snapshots.get(&number).is_some_and(fits) {
                items.push_str(&self.item(number, "status"));
                (last, count) = (number, count + 1);
                if count == most {
                    break;
                }
            }
        }
        // EC2 too may say that there is a page more, which is then empty.
        let next =
            if count == most && found.next().is_some() { next(last, usize::MAX) } else { String::new() };
        format!("<snapshotSet>{items}</snapshotSet>{next}")
    }

    fn item(&self, number: usize, state: &str) -> String {
        format!("<item>{}</item>", self.fields(number, state))
    }

    fn fields(&self, number: usize, state: &str) -> String {
        let Some(Snapshot { volume, tags }) = self.snapshots.get(&number) else { return String::new() };
        let mut items = String::new();
        for (key, value) in tags {
            let _ = write!(items, "<item><key>{key}</key><value>{value}</value></item>");
        }
        format!(
            "<snapshotId>snap-{number:017x}</snapshotId><volumeId>{volume}</volumeId><{state}>completed</{state}>\
             <startTime>2026-11-{:02}T{:02}:{:02}:{:02}.000Z</startTime><progress>100%</progress><ownerId>123456789012\
             </ownerId><volumeSize>8</volumeSize><storageTier>standard</storageTier><tagSet>{items}</tagSet>",
            1 + number / 86_400 % 20,
            number / 3_600 % 24,
            number / 60 % 60,
            number % 60
        )
    }
}

fn number_of(id: &str) -> Option<usize> {
    usize::from_str_radix(id.strip_prefix("snap-")?, 16).ok()
}

fn page(call: &Call) -> (usize, usize) {
    let number = |name: &str| call.parameters.get(name)?.as_str()?.parse().ok();
    (number("NextToken").unwrap_or(0), number("MaxResults").unwrap_or(1_000))
}

fn next(reached: usize, all: usize) -> String {
    if reached < all { format!("<nextToken>{reached}</nextToken>") } else { String::new() }
}

fn filters(call: &Call) -> Filters<'_> {
    let field = |name: String| call.parameters.get(&name).and_then(Value::as_str);
    let names = (1..).map_while(|number| Some((number, field(format!("Filter.{number}.Name"))?)));
    names
        .map(|(number, name)| {
            let values = (1..).map_while(|value| field(format!("Filter.{number}.Value.{value}")));
            (name, values.collect())
        })
        .collect()
}

fn tags(call: &Call, prefix: &str) -> BTreeMap<String, String> {
    let field = |name: String| call.parameters.get(&name).and_then(Value::as_str).map(str::to_owned);
    let numbers = (1..).map_while(|number| {
        let key = field(format!("{prefix}.{number}.Key"))?;
        Some((key, field(format!("{prefix}.{number}.Value")).unwrap_or_default()))
    });
    numbers.collect()
}

fn refused(status: u16, code: &str) -> Response<Full<Bytes>> {
    let error = format!("<Error><Code>{code}</Code><Message>as asked</Message></Error>");
    response(status, format!("<Response><Errors>{error}</Errors><RequestID>r</RequestID></Response>"))
}

fn response(status: u16, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("text/xml"));
    response
}
