//! The page as HTML.

use jiff::civil::Date;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use snapwarden_deployer::inventory::Snapshot;

use super::model::{Cell, Elsewhere, Page, Row, Share};
use crate::elsewhere::unseen;

const STYLE: &str = include_str!("page.css");

/// The whole document.
pub(crate) fn html(page: &Page<'_>) -> String {
    let scope = page.facts.scope;
    let title = format!("Backups of {}", scope.environment);
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p { "Account " (scope.account) ", " (scope.region) ", as of "
                        (page.facts.now.strftime("%F %H:%M UTC")) ". Days are those of " (page.facts.zone.name()) "." }
                    (tiles(page))
                }
                main {
                    (calendar(page))
                    (never_backed_up(page))
                    (expiries(page))
                    (trouble(page, "Due, but still there", "Cleanup held them, or has not run yet: ", &page.held))
                    (trouble(page, "Of volumes that are gone", "They can still be restored, and are billed: ", &page.orphaned))
                    (trouble(page, "Not encrypted", "A snapshot is encrypted only if its volume is: ", &page.clear))
                    @if !page.elsewhere.is_empty() || !page.facts.unseen.is_empty() { (copies(page)) }
                    (restores(page))
                }
                footer {
                    p { "GiB are the sizes of the volumes. Snapshots share what did not change between them, so what AWS
                         bills is at most this, and mostly far less. Costs are estimates by "
                         (page.facts.pricing.gib_month) " " (page.facts.pricing.currency) " per GiB and month
                         (pricing in the environment file)." }
                }
            }
        }
    };
    markup.into_string()
}

fn tiles(page: &Page<'_>) -> Markup {
    let age = page.oldest_hours().map_or_else(|| "none".to_owned(), |hours| format!("{hours} h"));
    let tiles = [
        (page.rows.iter().filter(|row| row.age_hours.is_some()).count().to_string(), "volumes with backups"),
        (page.never_backed_up().count().to_string(), "selected, never backed up"),
        (page.all.snapshots.to_string(), "snapshots"),
        (age, "oldest newest backup"),
        (page.held.len().to_string(), "due, still there"),
        (page.orphaned.len().to_string(), "of volumes that are gone"),
        (page.clear.len().to_string(), "not encrypted"),
        (cost(page, page.all), "a month at most"),
    ];
    html! {
        dl.tiles {
            @for (value, what) in tiles { div { dt { (what) } dd { (value) } } }
        }
    }
}

fn calendar(page: &Page<'_>) -> Markup {
    html! {
        section {
            h2 { "Coverage" }
            p.legend { "● complete  ◐ being made  ✕ failed  · none" }
            @if page.rows.is_empty() { p { "There are no snapshots." } }
            @else {
                div.scroll {
                    table.calendar {
                        thead {
                            tr {
                                th scope="col" { "Volume" }
                                @for day in &page.days {
                                    th scope="col" title=(day) { (day_number(*day, page.days[0])) }
                                }
                                th scope="col" { "Newest" }
                            }
                        }
                        tbody { @for row in &page.rows { (calendar_row(page, row)) } }
                    }
                }
            }
        }
    }
}

/// The day of the month, with the month where it changes.
fn day_number(day: Date, first: Date) -> String {
    let is_last_of_month = day.tomorrow().is_ok_and(|next| next.month() != day.month());
    if day == first || is_last_of_month { day.strftime("%b %-d").to_string() } else { day.day().to_string() }
}

fn calendar_row(page: &Page<'_>, row: &Row<'_>) -> Markup {
    html! {
        tr {
            th scope="row" {
                @if row.snapshots.is_empty() { (row.volume) }
                @else { a href=(format!("#{}", row.volume)) { (row.volume) } }
                small { (row.instance.unwrap_or("no instance")) @if !row.exists { ", gone" } }
            }
            @for (cell, day) in row.cells.iter().zip(&page.days) {
                @let (class, sign, what) = sign(*cell);
                td class=(class) title=(format!("{day}: {what}")) { (sign) }
            }
            td.age { (row.age_hours.map_or_else(|| "never".to_owned(), age)) }
        }
    }
}

fn sign(cell: Cell) -> (&'static str, &'static str, &'static str) {
    match cell {
        Cell::Complete => ("ok", "●", "complete"),
        Cell::Pending => ("pending", "◐", "being made"),
        Cell::Failed => ("bad", "✕", "failed"),
        Cell::Nothing => ("none", "·", "none"),
    }
}

fn age(hours: i64) -> String {
    if hours < 72 { format!("{hours} h") } else { format!("{} d", hours / 24) }
}

fn never_backed_up(page: &Page<'_>) -> Markup {
    let rows: Vec<_> = page.never_backed_up().collect();
    html! {
        section {
            h2 { "Selected, but never backed up" }
            @if rows.is_empty() { p { "None." } }
            @else {
                p { "Nobody could restore these volumes. New ones wait for the next backup; why others are left out is in
                     the log of the last one." }
                ul {
                    @for row in rows.iter().take(LISTED) {
                        li { code { (row.volume) } " of " (row.instance.unwrap_or("no instance")) }
                    }
                }
                @if rows.len() > LISTED { p { "and " (rows.len() - LISTED) " more" } }
            }
        }
    }
}

fn expiries(page: &Page<'_>) -> Markup {
    html! {
        section {
            h2 { "What expires when" }
            @if page.expiries.is_empty() { p { "Nothing is going to expire." } }
            @else {
                div.scroll {
                    table {
                        thead { tr { th { "Day" } th.number { "Snapshots" } th.number { "GiB, at most" } th.number { "Cost a month, at most" } } }
                        tbody {
                            @for (day, share) in &page.expiries {
                                tr { td { (day) } td.number { (share.snapshots) } td.number { (share.gib) }
                                     td.number { (cost(page, *share)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The most snapshots that a list of trouble names.
const LISTED: usize = 200;

fn trouble(page: &Page<'_>, title: &str, meaning: &str, snapshots: &[&Snapshot]) -> Markup {
    let share = Share::of(snapshots.iter().copied());
    html! {
        section {
            h2 { (title) }
            @if snapshots.is_empty() { p { "None." } }
            @else {
                p { (meaning) (counted(share.snapshots)) ", " (share.gib) " GiB, " (cost(page, share)) " a month at most." }
                div.scroll {
                    table {
                        thead { tr { th { "Snapshot" } th { "Volume" } th { "DeleteOn" } th.number { "GiB" } } }
                        tbody {
                            @for snapshot in snapshots.iter().take(LISTED) {
                                tr {
                                    td { code { (snapshot.snapshot) } }
                                    td { code { (snapshot.volume) } }
                                    td { (snapshot.delete_on.as_deref().unwrap_or("none")) }
                                    td.number { (snapshot.size_gib) }
                                }
                            }
                        }
                    }
                }
                @if snapshots.len() > LISTED { p { "and " (snapshots.len() - LISTED) " more" } }
            }
        }
    }
}

fn copies(page: &Page<'_>) -> Markup {
    let environment = &page.facts.scope.environment;
    html! {
        section {
            h2 { "Copies elsewhere" }
            p { "For the day on which " (page.facts.scope.region) " is lost, or the account is. "
                code { "cargo xtask restore plan --env " (environment) " --region REGION --instance ID --zone ZONE" }
                " shows what comes back of one instance; of copies in another account, with "
                code { "--account ACCOUNT" } " and credentials of that account." }
            div.scroll {
                table {
                    thead {
                        tr {
                            th { "Place" } th.number { "Copies" } th.number { "GiB, at most" } th { "Newest backup" }
                            th.number { "Being made" } th.number { "Failed" } th { "Volumes without a copy" }
                        }
                    }
                    tbody { @for there in &page.elsewhere { (copies_row(there)) } }
                }
            }
            @for place in page.facts.unseen { p { (unseen(place)) } }
        }
    }
}

fn copies_row(there: &Elsewhere<'_>) -> Markup {
    html! {
        tr {
            td { (there.place) }
            td.number { (there.complete.snapshots) }
            td.number { (there.complete.gib) }
            td { (there.age_hours.map_or_else(|| "none".to_owned(), age)) }
            td.number { (there.pending) }
            td.number { (there.failed) }
            td {
                @if there.without.is_empty() { "none" }
                @for volume in there.without.iter().take(LISTED) { code { (volume) } " " }
                @if there.without.len() > LISTED { "and " (there.without.len() - LISTED) " more" }
            }
        }
    }
}

fn restores(page: &Page<'_>) -> Markup {
    html! {
        section {
            h2 { "Restore" }
            p { "Each command makes a new volume of one snapshot, like the old one and in its zone where that still exists;
                 where it does not, put the instance's zone in the place of ZONE. Then stop the instance, and exchange its
                 volume for the new one." }
            @for row in page.rows.iter().filter(|row| !row.snapshots.is_empty()) {
                details id=(row.volume) {
                    summary {
                        code { (row.volume) } " of " (row.instance.unwrap_or("no instance")) ": "
                        (counted(row.snapshots.len()))
                    }
                    @for snapshot in &row.snapshots {
                        p {
                            strong { (snapshot.started_at.map_or_else(|| "unknown time".to_owned(), |at| at.strftime("%F %H:%M UTC").to_string())) }
                            ", " (snapshot.state) ", " (snapshot.size_gib) " GiB, deleted from "
                            (snapshot.delete_on.as_deref().unwrap_or("nobody knows when")) " on"
                        }
                        @match snapshot.state.as_str() {
                            "completed" => { pre { (restore(page, snapshot)) } }
                            "error" => { p { "It failed, and holds nothing that could be restored." } }
                            _ => { p { "It can be restored once it is completed." } }
                        }
                    }
                }
            }
        }
    }
}

/// A command that can be copied, as it is where the volume still exists. EC2 takes, and for some types wants, the
/// performance of a volume (source: EC2 API, `CreateVolume`).
fn restore(page: &Page<'_>, snapshot: &Snapshot) -> String {
    let (region, id) = (&page.facts.scope.region, &snapshot.snapshot);
    let command = |zone: &str| {
        format!("aws ec2 create-volume --region {region} --availability-zone {zone} --snapshot-id {id}")
    };
    let Some(volume) = page.facts.volumes.get(&snapshot.volume) else { return command("ZONE") };
    let kind = volume.kind.as_str();
    let iops = volume.iops.filter(|_| ["gp3", "io1", "io2"].contains(&kind));
    let throughput = volume.throughput.filter(|_| kind == "gp3");
    let options = [
        Some(format!(" --volume-type {kind}")),
        iops.map(|iops| format!(" --iops {iops}")),
        throughput.map(|throughput| format!(" --throughput {throughput}")),
    ];
    command(&volume.availability_zone) + &options.into_iter().flatten().collect::<String>()
}

fn counted(snapshots: usize) -> String {
    format!("{snapshots} snapshot{}", if snapshots == 1 { "" } else { "s" })
}

fn cost(page: &Page<'_>, share: Share) -> String {
    page.facts.pricing.a_month(share.gib)
}

#[cfg(test)]
mod tests;
