//! Restores, as text.

use std::fmt::Write;

use snapwarden_deployer::restore::drill::Drill;
use snapwarden_deployer::restore::{Made, RestorePlan, VolumePlan};

use super::style::{BAD, painted};
use super::table::table;
use crate::commands::restore::Restored;

/// What would be made.
pub(crate) fn plan(plan: &RestorePlan) -> String {
    let rows = plan.volumes.iter().map(|volume| {
        [
            volume.source_volume.clone().unwrap_or_else(|| "unknown".to_owned()),
            volume.snapshot.clone(),
            volume.size_gib.to_string(),
            volume.kind.clone(),
            volume.device.clone().unwrap_or_else(|| "unknown".to_owned()),
            encryption(volume),
        ]
    });
    let header = ["VOLUME", "SNAPSHOT", "GIB", "TYPE", "DEVICE", "ENCRYPTION"];
    let taken_at = plan.taken_at.map(|at| at.strftime("%F %H:%M:%S UTC").to_string()).unwrap_or_default();
    let count = plan.volumes.len();
    let (instance, zone, run) = (&plan.instance, &plan.zone, &plan.run);
    let from = plan.place().map(|place| format!(", from the copies in {place}"));
    format!(
        "{}\n\n{instance} as it was at {taken_at} (run {run}): {count} new volume{} in {zone}{}",
        table(header, rows),
        if count == 1 { "" } else { "s" },
        from.unwrap_or_default()
    )
}

fn encryption(volume: &VolumePlan) -> String {
    match (&volume.kms_key, volume.encrypted) {
        (Some(key), _) => format!("with {key}"),
        (None, true) => "as its snapshot".to_owned(),
        (None, false) => "none".to_owned(),
    }
}

/// What was made, and what to type next.
pub(crate) fn restored(restored: &Restored) -> String {
    let rows = restored.volumes.iter().map(|made| {
        [
            made.volume.clone(),
            made.snapshot.clone(),
            made.size_gib.to_string(),
            if made.encrypted { "yes" } else { "no" }.to_owned(),
            if made.was_there { "was there" } else { "made" }.to_owned(),
        ]
    });
    let table = table(["NEW VOLUME", "SNAPSHOT", "GIB", "ENCRYPTED", ""], rows);
    let purpose = match restored.plan.place() {
        Some(place) => format!("To attach them to an instance that you start in {place}:"),
        None => "To put them in the place of the original ones, which stay as they are:".to_owned(),
    };
    format!("{table}\n\n{purpose}\n\n  {}", restored.commands.join("\n  "))
}

/// Commands that exchange the volumes of an instance; what is not known is left in capitals.
pub(crate) fn attach_commands(plan: &RestorePlan, made: &[Made], region: &str) -> Vec<String> {
    let region = plan.copies_in.as_deref().unwrap_or(region);
    let aws = |command: &str| format!("aws ec2 {command} --region {region}");
    if plan.copies_in.is_some() {
        // The original instance is elsewhere.
        let attach = |made: &Made| {
            aws(&format!("attach-volume --volume-id {} --instance-id INSTANCE --device DEVICE", made.volume))
        };
        return made.iter().map(attach).collect();
    }
    let instance = &plan.instance;
    let mut commands = vec![aws(&format!("stop-instances --instance-ids {instance}"))];
    commands.push(aws(&format!("wait instance-stopped --instance-ids {instance}")));
    let mut attach = Vec::new();
    for made in made {
        let Some(wanted) = plan.volumes.iter().find(|wanted| wanted.snapshot == made.snapshot) else {
            continue;
        };
        let device = wanted.device.as_deref().unwrap_or("DEVICE");
        if let Some(source) = wanted.source_volume.as_ref().filter(|_| wanted.device.is_some()) {
            commands.push(aws(&format!("detach-volume --volume-id {source}")));
        }
        attach.push(aws(&format!(
            "attach-volume --volume-id {} --instance-id {instance} --device {device}",
            made.volume
        )));
    }
    commands.extend(attach);
    commands.push(aws(&format!("start-instances --instance-ids {instance}")));
    commands
}

/// How a drill went.
pub(crate) fn drill(drill: &Drill) -> String {
    let mut text = String::new();
    for problem in &drill.problems {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "- {problem}");
    }
    if !drill.left.is_empty() {
        let _ = writeln!(
            text,
            "- still there, and billed: {}; the next drill deletes them",
            drill.left.join(", ")
        );
    }
    let (count, instance, seconds) = (drill.made.len(), &drill.plan.instance, drill.seconds);
    let line = format!(
        "{instance}, run {}: {count} of {} volumes restored in {seconds} s",
        drill.plan.run,
        drill.plan.volumes.len()
    );
    if text.is_empty() {
        return format!("{line}, checked, and deleted again");
    }
    format!("{}\n{text}", painted(BAD, format!("{line}: the drill FAILED")))
}
