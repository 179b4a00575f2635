//! The software bill of materials: every crate that is compiled into the functions, as scanners read it.
//!
//! Form: CycloneDX 1.5, <https://cyclonedx.org/docs/1.5/json/>. The same sources give the same bytes: there is no serial
//! number and no time in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

use super::cargo::{BACKUP, CLEANUP};
use super::toolchain::TARGET;
use crate::tools::command::{self, CommandError};

/// The bill of the checkout in `root`.
pub(crate) fn describe(root: &Path) -> Result<String, SbomError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut metadata = Command::new(cargo);
    metadata.current_dir(root).args(["metadata", "--format-version", "1", "--locked", "--filter-platform"]);
    let answer = command::capture(metadata.arg(TARGET))?;
    Ok(bill(&serde_json::from_str(&answer)?)?)
}

/// Why there is no bill.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SbomError {
    /// Cargo did not say what the functions are made of.
    #[error("cannot ask Cargo for the functions' dependencies")]
    Cargo(#[from] CommandError),
    /// It said so in another form than expected.
    #[error("cannot read what Cargo says of the functions' dependencies")]
    Unreadable(#[from] serde_json::Error),
}

/// What `cargo metadata` says, as far as it matters here (source: The Cargo Book, "cargo metadata").
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// Nothing for what is linked in, `build` or `dev` for what is not.
    kind: Option<String>,
}

impl Package {
    /// The crate's address for scanners (source: Package URL specification, type `cargo`).
    fn purl(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }

    /// Whether it only runs while others are compiled.
    fn is_macro(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
    }
}

fn bill(metadata: &Metadata) -> Result<String, serde_json::Error> {
    let packages: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let nodes: BTreeMap<&str, &Node> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let linked = |id: &str| -> Vec<&Package> {
        let dependencies = nodes.get(id).into_iter().flat_map(|node| &node.deps);
        let linked =
            dependencies.filter(|dependency| dependency.dep_kinds.iter().any(|it| it.kind.is_none()));
        let found = linked.filter_map(|dependency| packages.get(dependency.pkg.as_str()).copied());
        found.filter(|package| !package.is_macro()).collect()
    };
    let is_function =
        |package: &&Package| package.source.is_none() && [BACKUP, CLEANUP].contains(&&*package.name);
    let mut ahead: Vec<&Package> = metadata.packages.iter().filter(is_function).collect();
    let mut components = BTreeMap::new();
    let mut dependencies = BTreeMap::new();
    while let Some(package) = ahead.pop() {
        if components.contains_key(&package.purl()) {
            continue;
        }
        let below = linked(&package.id);
        let depends_on: BTreeSet<String> = below.iter().map(|package| package.purl()).collect();
        dependencies.insert(package.purl(), json!({ "ref": package.purl(), "dependsOn": depends_on }));
        components.insert(package.purl(), component(package));
        ahead.extend(below);
    }
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application",
            "bom-ref": "snapwarden",
            "name": "snapwarden",
            "version": env!("CARGO_PKG_VERSION"),
        } },
        "components": components.into_values().collect::<Vec<_>>(),
        "dependencies": dependencies.into_values().collect::<Vec<_>>(),
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn component(package: &Package) -> Value {
    let is_program = [BACKUP, CLEANUP].contains(&&*package.name);
    let mut component = json!({
        "type": if is_program { "application" } else { "library" },
        "bom-ref": package.purl(),
        "name": package.name,
        "version": package.version,
    });
    // A crate of this workspace is nowhere to be had by that address.
    if package.source.is_some() {
        component["purl"] = json!(package.purl());
    }
    if let Some(license) = &package.license {
        // `MIT/Apache-2.0` is how some still write it; the expression wants `OR`.
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, source: Option<&str>, kind: &str) -> Value {
        json!({
            "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "source": source,
            "targets": [{ "kind": [kind] }],
        })
    }

    fn depends(on: &str, kind: Option<&str>) -> Value {
        json!({ "pkg": on, "dep_kinds": [{ "kind": kind }] })
    }

    /// A crate that a scanner is not told of is one whose hole nobody hears about.
    #[test]
    fn all_that_is_linked_into_a_function_is_listed_and_nothing_else() {
        let registry = Some("registry+https://github.com/rust-lang/crates.io-index");
        let metadata = json!({
            "packages": [
                package(BACKUP, None, "bin"), package(CLEANUP, None, "bin"), package("xtask", None, "bin"),
                package("direct", registry, "lib"), package("below", registry, "lib"),
                package("derive", registry, "proc-macro"), package("cc", registry, "lib"),
                package("mocks", registry, "lib"), package("clap", registry, "lib"),
            ],
            "resolve": { "nodes": [
                { "id": BACKUP, "deps": [depends("direct", None), depends("derive", None), depends("mocks", Some("dev"))] },
                { "id": CLEANUP, "deps": [depends("direct", None)] },
                { "id": "direct", "deps": [depends("below", None), depends("cc", Some("build"))] },
                { "id": "below", "deps": [] },
                { "id": "xtask", "deps": [depends("clap", None)] },
            ] },
        });
        let bill: Value =
            serde_json::from_str(&super::bill(&serde_json::from_value(metadata).unwrap()).unwrap()).unwrap();
        let names: Vec<_> =
            bill["components"].as_array().unwrap().iter().map(|it| it["name"].as_str()).collect();
        assert_eq!(names, [Some("below"), Some("direct"), Some(BACKUP), Some(CLEANUP)]);
        assert_eq!(bill["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["components"][0]["purl"], "pkg:cargo/below@1.0.0");
        assert_eq!(bill["components"][2].get("purl"), None);
        assert_eq!(bill["dependencies"][1]["dependsOn"], json!(["pkg:cargo/below@1.0.0"]));
    }
}
