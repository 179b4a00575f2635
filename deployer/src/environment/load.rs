//! Reads an environment file and says exactly what is wrong with one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use snapwarden_domain::excerpt::excerpt;
use snapwarden_domain::names::{EnvironmentName, InvalidEnvironmentName};

use super::lint::{Finding, lint};
use super::suggest::with_suggestion;
use super::{Environment, place};

/// Why an environment cannot be used. Nothing has been touched when this is returned.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// What was asked for cannot be an environment's name.
    #[error("{source}{}", known(available))]
    Name {
        /// What is wrong with it.
        source: InvalidEnvironmentName,
        /// The environments there are.
        available: Vec<String>,
    },
    /// There is no file of that name.
    #[error("there is no environment `{name}`: {} does not exist{}", path.display(), known(available))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where it would be.
        path: PathBuf,
        /// The environments there are.
        available: Vec<String>,
    },
    /// The file is there but cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file's text is not an environment.
    #[error("{}{place}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// `:line:column`, where known.
        place: String,
        /// The key's path and what is wrong with it.
        message: String,
    },
}

fn known(available: &[String]) -> String {
    if available.is_empty() { String::new() } else { format!(" (there are: {})", available.join(", ")) }
}

/// Reads `<folder>/<name>.yaml`.
pub fn load(folder: &Path, name: &str) -> Result<Environment, LoadError> {
    Ok(load_with_text(folder, name)?.0)
}

/// The same, with what is valid and yet hardly meant, as of `now`.
pub fn load_and_lint(
    folder: &Path,
    name: &str,
    now: Timestamp,
) -> Result<(Environment, Vec<Finding>), LoadError> {
    let (environment, path, text) = load_with_text(folder, name)?;
    let mut findings = lint(&environment, now);
    for finding in &mut findings {
        finding.place = format!("{}{}", path.display(), place::of(&text, &finding.key));
    }
    Ok((environment, findings))
}

fn load_with_text(folder: &Path, name: &str) -> Result<(Environment, PathBuf, String), LoadError> {
    let (path, text) = read(folder, name)?;
    let environment = parse(&path, &text)?;
    check_name(&path, &text, name, &environment.environment)?;
    Ok((environment, path, text))
}

/// The path and the text of `<folder>/<name>.yaml`.
pub(super) fn read(folder: &Path, name: &str) -> Result<(PathBuf, String), LoadError> {
    // Checked before the path is used, so that `../x` is an unknown name and not a way out of the folder.
    if let Err(source) = name.parse::<EnvironmentName>() {
        return Err(LoadError::Name { source, available: list(folder) });
    }
    let path = folder.join(format!("{name}.yaml"));
    match fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(LoadError::Unknown { name: name.to_owned(), path, available: list(folder) })
        }
        Err(source) => Err(LoadError::Unreadable { path, source }),
    }
}

/// A file that was copied and not edited must not act on the environment it was copied from.
pub(super) fn check_name(
    path: &Path,
    text: &str,
    name: &str,
    says: &EnvironmentName,
) -> Result<(), LoadError> {
    if says.as_str() == name {
        return Ok(());
    }
    Err(LoadError::Invalid {
        message: format!(
            "environment: it says `{says}`, but the file is named {name}.yaml; they must be the same"
        ),
        place: line_of(text, "environment"),
        path: path.to_owned(),
    })
}

/// The names of the environments that a folder holds, sorted.
pub fn list(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_stem()?.to_str()?.to_owned();
            (path.extension()? == "yaml").then_some(name)
        })
        .collect();
    names.sort();
    names
}

/// Reads an environment from the text of the file at `path`.
pub fn parse(path: &Path, text: &str) -> Result<Environment, LoadError> {
    parse_as(path, text)
}

/// Reads all or a part of what an environment file says.
pub(super) fn parse_as<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, LoadError> {
    let invalid =
        |place: String, message: String| LoadError::Invalid { path: path.to_owned(), place, message };
    let reader = serde_yaml::Deserializer::from_str(text);
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let key = error.path().to_string();
        let error = error.into_inner();
        let place = error.location().map(|at| format!(":{}:{}", at.line(), at.column())).unwrap_or_default();
        let key = if key == "." { String::new() } else { format!("{}: ", excerpt(&key)) };
        invalid(place, format!("{key}{}", with_suggestion(without_place(&excerpt(&error)))))
    })
}

/// The YAML library ends its messages with the place, and begins them with the key: both are said already.
fn without_place(message: &str) -> &str {
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    match message.split_once(": ") {
        Some((key, rest))
            if !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_.[]".contains(c)) =>
        {
            rest
        }
        _ => message,
    }
}

/// `:line:1` of a top-level key.
fn line_of(text: &str, key: &str) -> String {
    text.lines()
        .position(|line| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':')))
        .map(|index| format!(":{}:1", index + 1))
        .unwrap_or_default()
}
