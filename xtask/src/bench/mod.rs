//! Benchmarks: what the functions and the deployer take, beside what others take for the same.
//!
//! Every figure is from one run on one machine, so only ratios within a run say anything; docs/benchmarks.md says what
//! they show.

mod cloud;
mod deploys;
mod fleet;
mod growth;
mod http;
mod lambda;
mod local;
mod native;
mod start;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use snapwarden_deployer::bundle::Bundle;

use crate::bundle;
use crate::context::Context;
use crate::failure::Failure;
use crate::render::table::wide_table;

/// What there is to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Benchmark {
    /// Backup and cleanup of a fleet, beside the usual Python script
    Fleet,
    /// How much of EC2's request rate a run uses, and how often it is throttled
    Buckets,
    /// Cold start, and sizes
    Start,
    /// Deploy, no-op deploy, a change, destroy, beside CloudFormation and cargo-lambda
    Deploy,
    /// What ever more snapshots cost
    Growth,
    /// How long it takes to build the functions
    Build,
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) context: &'a Context,
    /// Two minutes for a pipeline, rather than what the tables in the documentation take.
    pub(crate) is_short: bool,
    /// A bundle that is there already.
    pub(crate) bundle: Option<&'a Path>,
}

/// What a benchmark came to.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    /// What its rows compare.
    pub(crate) about: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// One thing measured.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) figures: Vec<Figure>,
}

/// One figure of it.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

/// A count as a figure.
fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

impl Row {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), figures: Vec::new() }
    }

    /// The same with one figure more.
    pub(crate) fn with(mut self, name: &'static str, value: f64, unit: &'static str) -> Self {
        self.figures.push(Figure { name, value, unit });
        self
    }

    pub(crate) fn figure(&self, name: &str) -> f64 {
        self.figures.iter().find(|figure| figure.name == name).map_or(f64::NAN, |figure| figure.value)
    }
}

impl Scope<'_> {
    /// The folder of the bundle, which is built unless there is one.
    fn bundle(self) -> Result<PathBuf, Failure> {
        let context = self.context;
        match self.bundle {
            Some(folder) => Ok(Bundle::load(folder).map(|_| folder.to_owned())?),
            None => {
                bundle::ensure_bundle(context.workspace(), context.progress())?;
                Ok(context.workspace().bundle())
            }
        }
    }

    /// Measures.
    pub(crate) fn run(self, benchmark: Benchmark) -> Result<Outcome, Failure> {
        match benchmark {
            Benchmark::Fleet => fleet::against_python(self),
            Benchmark::Buckets => fleet::bucket_use(self),
            Benchmark::Start => start::run(self),
            Benchmark::Deploy => deploys::run(self),
            Benchmark::Growth => growth::run(self),
            Benchmark::Build => native::build(self),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<&str> = Vec::new();
        for figure in self.rows.iter().flat_map(|row| &row.figures) {
            if !names.contains(&figure.name) {
                names.push(figure.name);
            }
        }
        let upper: Vec<String> = names.iter().map(|name| name.to_uppercase()).collect();
        let header = [self.name.to_uppercase()].into_iter().chain(upper).collect::<Vec<_>>();
        let rows = self.rows.iter().map(|row| {
            let cell = |name: &&str| {
                let figure = row.figures.iter().find(|figure| figure.name == *name);
                figure.map(ToString::to_string).unwrap_or_default()
            };
            [row.what.clone()].into_iter().chain(names.iter().map(cell)).collect()
        });
        write!(f, "{}\n{}", wide_table(header.iter().map(String::as_str).collect(), rows), self.about)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, unit, .. } = self;
        match *unit {
            "" => write!(f, "{value:.0}"),
            "×" | "ratio" => write!(f, "{value:.2}"),
            "%" => write!(f, "{value:.1} %"),
            unit if *value < 10.0 => write!(f, "{value:.2} {unit}"),
            unit => write!(f, "{value:.1} {unit}"),
        }
    }
}
