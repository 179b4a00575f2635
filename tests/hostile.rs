//! Damaged and hostile input: files, events, tags and bundles that nobody in their right mind would write.
//!
//! Each is mutated from a valid one, since noise alone is refused at the first byte. Whatever comes of it, it is an
//! answer or an error that people can read; never a panic, and never an endless loop, which would end the test run.
//! `cargo xtask test --long` takes a hundred times as many.

#![allow(clippy::unwrap_used, reason = "what a test cannot do fails it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use snapwarden_deployer::bundle::Bundle;
use snapwarden_deployer::environment;
use snapwarden_deployer::plan::Plan;
use snapwarden_deployer::saved_plan::SavedPlan;
use snapwarden_deployer::scope::Scope;
use snapwarden_domain::event::Event;
use snapwarden_domain::retention::DeleteOn;
use snapwarden_domain::run::RunId;
use snapwarden_domain::wishes;
use snapwarden_tests::checkout;

/// What happens to a text on its way.
#[derive(Clone, Debug)]
enum Damage {
    /// It ends here.
    Cut(prop::sample::Index),
    /// A part of it is missing.
    Gap(prop::sample::Index, usize),
    /// Something is in it that was not.
    Insert(prop::sample::Index, String),
    /// A byte is another one.
    Flip(prop::sample::Index, u8),
    /// A line is there many times.
    Repeat(prop::sample::Index, usize),
    /// A word or number is another one.
    Replace(prop::sample::Index, String),
}

fn damage() -> impl Strategy<Value = Damage> {
    use prop::sample::Index;
    let text = prop_oneof![
        Just("99999999999999999999".to_owned()),
        Just("-1".to_owned()),
        Just("1e400".to_owned()),
        Just("null".to_owned()),
        Just("{{{{[[[[".repeat(64)),
        Just("&a [*a, *a]".to_owned()),
        Just("*".to_owned()),
        Just("!!binary x".to_owned()),
        Just("\u{0}\u{feff}\u{202e}".to_owned()),
        Just("x".repeat(5_000)),
        Just("9999-12-31".to_owned()),
        "\\PC{0,40}",
        "[ \\t\\n:{}\\[\\],\"'#-]{1,8}",
    ];
    prop_oneof![
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Damage::Gap(at, length)),
        (any::<Index>(), text.clone()).prop_map(|(at, text)| Damage::Insert(at, text)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        (any::<Index>(), 2..200_usize).prop_map(|(at, times)| Damage::Repeat(at, times)),
        (any::<Index>(), text).prop_map(|(at, text)| Damage::Replace(at, text)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Gap(at, length) => {
                let at = at.index(bytes.len());
                bytes.drain(at..(at + length).min(bytes.len()));
            }
            Self::Insert(at, text) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, text.bytes());
            }
            Self::Flip(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Self::Repeat(at, times) => {
                let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
                let line = at.index(lines.len());
                let start: usize = lines[..line].iter().map(|line| line.len()).sum();
                // A binary file may be all one line.
                let again = lines[line][..lines[line].len().min(2_000)].repeat(*times);
                bytes.splice(start..start, again);
            }
            Self::Replace(at, text) => {
                let is_word = |byte: &u8| byte.is_ascii_alphanumeric();
                let at = at.index(bytes.len());
                let start = bytes[..at].iter().rposition(|byte| !is_word(byte)).map_or(0, |start| start + 1);
                let end =
                    bytes[at..].iter().position(|byte| !is_word(byte)).map_or(bytes.len(), |end| at + end);
                bytes.splice(start.min(end)..end, text.bytes());
            }
        }
    }
}

fn cases(many: u32) -> Config {
    let cases = if std::env::var_os("SNAPWARDEN_LONG").is_some() { many * 100 } else { many };
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// Damages each of the texts, and looks at what comes of it.
fn damaged(many: u32, texts: &[Vec<u8>], check: impl Fn(&[u8]) -> Result<(), TestCaseError>) {
    for text in texts {
        for eighth in 0..8 {
            let mut bytes = text.clone();
            let at = text.len() * eighth / 8;
            bytes.splice(at..at, std::iter::repeat_n(b'x', LONGER_THAN_AN_ERROR));
            check(&bytes).unwrap();
        }
    }
    let strategy = (prop::sample::select(texts.to_vec()), vec(damage(), 1..4));
    TestRunner::new(cases(many))
        .run(&strategy, |(mut bytes, damages)| {
            for damage in &damages {
                damage.apply(&mut bytes);
            }
            check(&bytes)
        })
        .unwrap();
}

/// In bytes. Many errors of one file are written together.
const LONGER_THAN_AN_ERROR: usize = 20_000;

/// Whether people can read an error: not empty, and no screenful.
fn is_readable(error: &str) -> Result<(), TestCaseError> {
    prop_assert!(!error.trim().is_empty());
    prop_assert!(error.len() < LONGER_THAN_AN_ERROR, "{} bytes of error", error.len());
    Ok(())
}

#[test]
fn environment_files() {
    let folders = ["environments", "tests/configs/valid", "tests/configs/invalid"];
    let files = folders.map(|folder| fs::read_dir(checkout().join(folder)).unwrap());
    let files = files.into_iter().flatten().map(|file| file.unwrap().path());
    let texts: Vec<_> = files
        .filter(|file| file.extension() == Some("yaml".as_ref()))
        .map(|file| fs::read(file).unwrap())
        .collect();
    damaged(400, &texts, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        match environment::parse(Path::new("environments/prod.yaml"), &text) {
            // What was read must be fit for everything that comes next.
            Ok(environment) => drop(Scope::of(&environment)),
            Err(error) => is_readable(&error.to_string())?,
        }
        Ok(())
    });
}

#[test]
fn events() {
    let events = [
        Event::manual("2026-11-22T02:00:00Z".parse().unwrap(), true),
        Event { max_deletes: Some(7), ..Event::manual("2026-11-22T02:00:00Z".parse().unwrap(), false) },
    ];
    let mut texts: Vec<_> = events.iter().map(|event| serde_json::to_vec(event).unwrap()).collect();
    let scheduled = json!({
        "scheduled_at": "2026-11-22T02:00:00Z",
        "schedule": "arn:aws:scheduler:eu-central-1:123456789012:schedule/snapwarden-prod/backup",
        "dry_run": false,
        "continuation": { "hop": 1 },
    });
    texts.push(serde_json::to_vec(&scheduled).unwrap());
    damaged(2_000, &texts, |bytes| {
        // What is no JSON at all does not get past Lambda.
        let Ok(value) = serde_json::from_slice(bytes) else { return Ok(()) };
        match Event::from_json(value) {
            Ok(event) => {
                let at = "2026-11-22T02:00:05Z".parse().unwrap();
                // Either it is refused, or its run has a name that can be read again.
                if event.clock(at).is_ok() {
                    let run = event.run().to_string();
                    prop_assert_eq!(run.parse::<RunId>().map(|run| run.to_string()), Ok(run));
                }
            }
            Err(error) => is_readable(&error.to_string())?,
        }
        Ok(())
    });
}

#[test]
fn plan_files() {
    let text = fs::read_to_string(checkout().join("environments/local.yaml")).unwrap();
    let environment = environment::parse(Path::new("local.yaml"), &text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.plan");
    let plan = Plan::default();
    SavedPlan::new(&Scope::of(&environment), BTreeMap::new(), &BTreeMap::default(), plan)
        .write(&file)
        .unwrap();
    let whole = fs::read(&file).unwrap();
    let read = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        SavedPlan::read(&file)
    };
    let written = read(&whole).unwrap();
    damaged(400, std::slice::from_ref(&whole), |bytes| {
        match read(bytes) {
            // A change of white space, at most.
            Ok(plan) => prop_assert_eq!(&plan, &written),
            Err(error) => is_readable(&error.to_string())?,
        }
        Ok(())
    });
}

#[test]
fn tags() {
    let values = ["2026-11-22", "30", "true", "vol-0123456789abcdef0, vol-1", "manual@2026-11-22T02:00:00Z"];
    let texts: Vec<_> = values.iter().map(|value| value.as_bytes().to_vec()).collect();
    damaged(2_000, &texts, |bytes| {
        // EC2 takes values of at most 256 characters.
        let text: String = String::from_utf8_lossy(bytes).chars().take(256).collect();
        let wishes = wishes::read(|_| Some(text.as_str()));
        for warning in &wishes.warnings {
            is_readable(warning)?;
        }
        if let Ok(day) = text.parse::<DeleteOn>() {
            // What is read as a day is written as that day: nothing else may delete a snapshot.
            prop_assert_eq!(day.to_string(), text.clone());
        }
        if let Ok(run) = text.parse::<RunId>() {
            prop_assert_eq!(
                run.to_string().parse::<RunId>().map(|again| again.to_string()),
                Ok(run.to_string())
            );
        }
        Ok(())
    });
}

/// The bundle that `cargo xtask test` has built; the program in it is of no matter, so it is cut to a size that can be
/// damaged a thousand times.
#[test]
fn bundles() {
    let folder = tempfile::tempdir().unwrap();
    snapwarden_tests::copy_bundle(folder.path());
    let load = || Bundle::load(folder.path());
    let written = load().unwrap();
    for file in ["bundle.json", "backup.zip", "sbom.cdx.json"] {
        let path = folder.path().join(file);
        let bytes = fs::read(&path).unwrap();
        damaged(if file == "bundle.json" { 100 } else { 20 }, std::slice::from_ref(&bytes), |damaged| {
            fs::write(&path, damaged).unwrap();
            match load() {
                Ok(bundle) => {
                    prop_assert!(bundle.backup == written.backup && bundle.cleanup == written.cleanup);
                    prop_assert!(bundle.sbom == written.sbom);
                }
                Err(error) => is_readable(&error.to_string())?,
            }
            Ok(())
        });
        fs::write(&path, &bytes).unwrap();
    }
}

#[test]
fn fault_scenarios() {
    let text = b"seed: 7\nlatency: { ms: 4 }\nbuckets: { scale: 1 }\nrules:\n  - { calls: all, fault: throttle, first: 2 }\n";
    damaged(400, &[text.to_vec()], |bytes| {
        let scenario: Result<snapwarden_proxy::Scenario, _> = String::from_utf8_lossy(bytes).parse();
        scenario.map_or_else(|error| is_readable(&error.to_string()), |_| Ok(()))
    });
}
