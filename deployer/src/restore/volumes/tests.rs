//! What EC2 does that the emulator never does: volumes that take their time, that come to nothing, and answers that get
//! lost.

use std::sync::{Arc, Mutex};

use aws_smithy_http_client::test_util::infallible_client_fn;

use super::*;
use crate::aws::LocalEndpoints;
use crate::error::ErrorClass;

/// An answer of EC2's: a status and a body.
type Answer = (u16, String);

/// Clients of an EC2 that answers what `answer` says to each request, and the forms of all requests.
fn ec2(answer: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> (Aws, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let forms = seen.clone();
    let http = infallible_client_fn(move |request| {
        let form = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
        let mut forms = forms.lock().unwrap();
        let action = field(&form, "Action").unwrap_or_default().to_owned();
        let before = forms.iter().filter(|form| field(form, "Action") == Some(&action)).count();
        let (status, body) = answer(&form, before);
        forms.push(form);
        http::Response::builder().status(status).body(body).unwrap()
    });
    let nowhere = LocalEndpoints { general: "http://127.0.0.1:9".into(), ec2: "http://127.0.0.1:9".into() };
    (Aws::local_through(&"eu-central-1".to_owned().try_into().unwrap(), &nowhere, &http), seen)
}

fn field<'a>(form: &'a str, name: &str) -> Option<&'a str> {
    form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn calls(seen: &Mutex<Vec<String>>, action: &str) -> Vec<String> {
    let seen = seen.lock().unwrap();
    seen.iter().filter(|form| field(form, "Action") == Some(action)).cloned().collect()
}

fn refusal(code: &str) -> Answer {
    let error = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
    (400, format!("<Response><Errors>{error}</Errors></Response>"))
}

fn made(id: &str) -> Answer {
    (200, format!("<CreateVolumeResponse><volumeId>{id}</volumeId></CreateVolumeResponse>"))
}

/// The volumes, each with its state and what it is made of.
fn listed(volumes: &[(&str, &str, &str)]) -> Answer {
    let item = |(id, state, snapshot): &(&str, &str, &str)| {
        let tag = |key: &str, value: &str| format!("<item><key>{key}</key><value>{value}</value></item>");
        let tags = tag(RESTORED_BY, "prod") + &tag(RESTORED_FROM, snapshot);
        format!(
            "<item><volumeId>{id}</volumeId><status>{state}</status><size>8</size><encrypted>true</encrypted>\
             <tagSet>{tags}</tagSet></item>"
        )
    };
    let items: String = volumes.iter().map(item).collect();
    (200, format!("<DescribeVolumesResponse><volumeSet>{items}</volumeSet></DescribeVolumesResponse>"))
}

fn plan(snapshots: &[&str]) -> RestorePlan {
    let volume = |snapshot: &&str| VolumePlan {
        snapshot: (*snapshot).to_owned(),
        source_volume: None,
        size_gib: 8,
        kind: "gp3".to_owned(),
        iops: None,
        throughput: None,
        device: None,
        encrypted: false,
        kms_key: Some("alias/backup".to_owned()),
        tags: BTreeMap::new(),
    };
    RestorePlan {
        environment: "prod".to_owned(),
        instance: "i-1".to_owned(),
        run: "r".to_owned(),
        taken_at: None,
        copies_in: None,
        account: None,
        owner: None,
        zone: "eu-central-1a".to_owned(),
        volumes: snapshots.iter().map(volume).collect(),
    }
}

async fn restored(aws: &Aws, snapshots: &[&str]) -> Result<Vec<Made>, RestoreError> {
    restore(aws, &plan(snapshots), &BTreeMap::new(), &|_| ()).await
}

/// A volume that is made twice is paid twice, and somebody attaches the wrong one.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_again_with_the_same_token() {
    let (aws, seen) = ec2(|form, before| match field(form, "Action") {
        Some("CreateVolume") if before == 0 => (503, String::new()),
        Some("CreateVolume") => made("vol-1"),
        _ if before == 0 => listed(&[]),
        _ => listed(&[("vol-1", "available", "snap-1")]),
    });
    let volumes = restored(&aws, &["snap-1"]).await.unwrap();
    assert_eq!((volumes.len(), volumes[0].volume.as_str(), volumes[0].was_there), (1, "vol-1", false));
    let created = calls(&seen, "CreateVolume");
    let tokens: BTreeSet<_> = created.iter().map(|form| field(form, "ClientToken").unwrap()).collect();
    assert_eq!((created.len(), tokens.len()), (2, 1), "{created:?}");
    assert_eq!(field(&created[0], "KmsKeyId"), Some("alias%2Fbackup"));
}

/// Whoever attaches a volume that is not there yet gets an error in the middle of an emergency.
#[tokio::test(start_paused = true)]
async fn volumes_are_waited_for_until_all_can_be_attached() {
    let (aws, seen) = ec2(|form, before| match (field(form, "Action"), before) {
        (Some("CreateVolume"), before) => made(&format!("vol-{}", before + 1)),
        (_, 0) => listed(&[]),
        // The second is not even listed at first.
        (_, 1) => listed(&[("vol-1", "creating", "snap-1")]),
        (_, 2) => listed(&[("vol-1", "available", "snap-1"), ("vol-2", "creating", "snap-2")]),
        _ => listed(&[("vol-1", "available", "snap-1"), ("vol-2", "available", "snap-2")]),
    });
    let volumes = restored(&aws, &["snap-1", "snap-2"]).await.unwrap();
    assert!(volumes.iter().all(|made| made.size_gib == 8 && made.encrypted), "{volumes:?}");
    assert_eq!(calls(&seen, "DescribeVolumes").len(), 4);
}

/// Five minutes later somebody has to decide what to do, and has to know about which volumes.
#[tokio::test(start_paused = true)]
async fn volumes_that_never_become_available_are_named() {
    let (aws, _) = ec2(|form, before| match (field(form, "Action"), before) {
        (Some("CreateVolume"), before) => made(&format!("vol-{}", before + 1)),
        (_, 0) => listed(&[]),
        _ => listed(&[("vol-1", "available", "snap-1"), ("vol-2", "creating", "snap-2")]),
    });
    let error = restored(&aws, &["snap-1", "snap-2"]).await.unwrap_err();
    assert_eq!(error, RestoreError::NotAvailable { seconds: 300, volumes: vec!["vol-2".to_owned()] });
}

/// EC2 accepts a volume whose key it may not use, and says so by the volume's state.
#[tokio::test(start_paused = true)]
async fn a_volume_that_comes_to_nothing_for_want_of_its_key_is_named_at_once() {
    let (aws, seen) = ec2(|form, before| match (field(form, "Action"), before) {
        (Some("CreateVolume"), _) => made("vol-1"),
        (_, 0) => listed(&[]),
        _ => listed(&[("vol-1", "error", "snap-1")]),
    });
    let error = restored(&aws, &["snap-1"]).await.unwrap_err();
    assert_eq!(error, RestoreError::Failed { volumes: vec!["vol-1".to_owned()] });
    assert_eq!(calls(&seen, "DescribeVolumes").len(), 2, "it is not waited for");
}

/// What was made before the failure is used by the next try, and not made again.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_in_ec2s_words_and_the_next_try_goes_on() {
    for code in ["UnauthorizedOperation", "VolumeLimitExceeded", "InvalidSnapshot.NotFound"] {
        let (aws, seen) = ec2(move |form, before| match (field(form, "Action"), before) {
            (Some("CreateVolume"), 0) => made("vol-1"),
            (Some("CreateVolume"), _) => refusal(code),
            _ => listed(&[]),
        });
        let error = restored(&aws, &["snap-1", "snap-2"]).await.unwrap_err();
        assert_eq!(error.to_string(), format!("ec2:CreateVolume: {code}: no"));
        let denied = matches!(&error, RestoreError::Aws(error) if error.class == ErrorClass::AccessDenied);
        assert_eq!(denied, code == "UnauthorizedOperation");
        assert_eq!(calls(&seen, "CreateVolume").len(), 2);
    }
    let (aws, seen) = ec2(|form, before| match (field(form, "Action"), before) {
        (Some("CreateVolume"), _) => made("vol-2"),
        (_, 0) => listed(&[("vol-1", "creating", "snap-1")]),
        _ => listed(&[("vol-1", "available", "snap-1"), ("vol-2", "available", "snap-2")]),
    });
    let volumes = restored(&aws, &["snap-1", "snap-2"]).await.unwrap();
    assert_eq!(volumes.iter().map(|made| made.was_there).collect::<Vec<_>>(), [true, false]);
    assert_eq!(calls(&seen, "CreateVolume").len(), 1);
}
