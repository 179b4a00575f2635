//! The README as a newcomer reads it: every command in it is run, and what it says they print is what they print.

use std::fs;

use snapwarden_tests::{Local, bundle, checkout};

/// A command with the output that the README shows; `None` where it shows none.
struct Shown {
    arguments: Vec<String>,
    output: Option<String>,
}

/// Commands of a README that no longer work are the first thing a newcomer meets.
#[test]
fn every_command_in_the_readme_works_and_prints_what_it_says() {
    let local = Local::new();
    // The walk through AWS is taken on an environment of the same file that lives on the emulators.
    let prod = fs::read_to_string(checkout().join("environments/prod.yaml")).unwrap();
    let prod = prod.replace("environment: prod", "environment: prod\ncloud: local");
    local.write_environment("prod", &prod.replace("000000000000", "123456789012"));

    let commands = commands(&fs::read_to_string(checkout().join("README.md")).unwrap());
    assert!(commands.len() >= 10, "the README has fewer commands than it had");
    for Shown { mut arguments, output } in commands {
        if ["test", "help"].contains(&arguments[0].as_str()) {
            // This is `cargo xtask test`; help is clap's.
            continue;
        }
        if ["plan", "deploy"].contains(&arguments[0].as_str()) {
            // `cargo xtask test` has built it already.
            arguments.extend(["--bundle".to_owned(), bundle()]);
        }
        let ran = local.ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        if let Some(output) = output {
            assert_eq!(
                comparable(&ran.stdout),
                comparable(&output),
                "the README shows something else: {ran:?}"
            );
        }
    }
}

/// The lines without what differs from run to run: ids, dates, and the order of rows, which goes by id.
fn comparable(output: &str) -> Vec<String> {
    let same = |word: &str| match word.split_once('-') {
        Some((kind @ ("i" | "vol" | "snap"), id)) if id.len() == 17 => format!("{kind}-ID"),
        Some((year, _)) if word.len() == 10 && year.parse::<u16>().is_ok() => "DATE".to_owned(),
        _ => word.to_owned(),
    };
    let mut lines: Vec<String> = output
        .trim_end()
        .lines()
        .map(|line| {
            line.split(' ').map(|word| same(word.trim_matches(['(', ')', ',']))).collect::<Vec<_>>().join(" ")
        })
        .collect();
    lines.sort();
    lines
}

fn commands(readme: &str) -> Vec<Shown> {
    let mut commands: Vec<Shown> = Vec::new();
    let mut block = None;
    for line in readme.lines() {
        let line = if block == Some("sh") { line.trim_start() } else { line };
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = block.is_none().then_some(language);
        } else if let Some(command) = line.strip_prefix("$ cargo xtask ").filter(|_| block == Some("console"))
        {
            commands.push(Shown { arguments: words(command), output: Some(String::new()) });
        } else if let Some(command) = line.strip_prefix("cargo xtask ").filter(|_| block == Some("sh")) {
            commands.push(Shown { arguments: words(command), output: None });
        } else if block == Some("console")
            && let Some(output) = commands.last_mut().and_then(|command| command.output.as_mut())
        {
            output.push_str(line);
            output.push('\n');
        }
    }
    commands
}

fn words(command: &str) -> Vec<String> {
    command.split_whitespace().map(str::to_owned).collect()
}
