//! Progress on stderr: spinners on a terminal, plain lines elsewhere, JSON lines with `--json`.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anstream::adapter::strip_str;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::render::style::{NOTICE, painted};

/// Where progress goes. Cheap to clone; all clones draw on the same screen.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Mode);

#[derive(Clone, Debug)]
enum Mode {
    Bars(MultiProgress),
    Lines,
    Json,
}

impl Progress {
    /// Chooses the form: JSON when asked, spinners when stderr is a terminal, lines otherwise.
    pub(crate) fn new(json: bool) -> Self {
        Self(if json {
            Mode::Json
        } else {
            let screen = MultiProgress::new();
            // A terminal that cannot move its cursor would show nothing at all.
            if std::io::stderr().is_terminal() && !screen.is_hidden() {
                Mode::Bars(screen)
            } else {
                Mode::Lines
            }
        })
    }

    /// Begins a piece of work, such as `building the functions`.
    pub(crate) fn start(&self, what: impl Into<String>) -> Task {
        let what = what.into();
        let bar = match &self.0 {
            Mode::Bars(screen) => {
                let bar = screen.add(ProgressBar::new_spinner().with_message(what.clone()));
                if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                    bar.set_style(style);
                }
                bar.enable_steady_tick(Duration::from_millis(120));
                Some(bar)
            }
            Mode::Lines | Mode::Json => {
                self.line("start", &format!("{what} …"));
                None
            }
        };
        Task { progress: self.clone(), what, bar, started: Instant::now(), said: None }
    }

    /// Says something that is not a piece of work of its own.
    pub(crate) fn note(&self, text: &str) {
        self.line("note", text);
    }

    /// Whether progress is lines of JSON, for programs.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.0, Mode::Json)
    }

    /// Writes a line of JSON; nothing where progress is for people.
    pub(crate) fn event(&self, event: &serde_json::Value) {
        if self.is_json() {
            // Nothing is left to be done when stderr itself is gone.
            drop(writeln!(std::io::stderr(), "{event}"));
        }
    }

    /// Says something that a person should look at.
    pub(crate) fn warn(&self, text: &str) {
        match &self.0 {
            Mode::Json => self.line("warning", text),
            _ => self.line("warning", &format!("{} {text}", painted(NOTICE, "warning:"))),
        }
    }

    /// Whether spinners are drawn, so that a child process must not write to the same screen.
    pub(crate) fn owns_screen(&self) -> bool {
        matches!(self.0, Mode::Bars(_))
    }

    fn line(&self, event: &str, text: &str) {
        match &self.0 {
            // Nothing is left to be done when stderr itself is gone.
            Mode::Bars(screen) => drop(screen.println(text)),
            Mode::Lines => drop(writeln!(anstream::stderr(), "{text}")),
            Mode::Json => {
                let text = strip_str(text).to_string();
                let line = serde_json::json!({ "event": event, "text": text });
                drop(writeln!(std::io::stderr(), "{line}"));
            }
        }
    }
}

/// How long a wait goes on before lines mention it again.
const PATIENCE: Duration = Duration::from_secs(10);

/// A piece of work that has begun. Dropping it without [`Task::done`] just takes its spinner away.
#[derive(Debug)]
pub(crate) struct Task {
    progress: Progress,
    what: String,
    bar: Option<ProgressBar>,
    started: Instant,
    said: Option<Duration>,
}

impl Task {
    /// Says how far it is. Only spinners show it: lines and JSON would drown in it.
    pub(crate) fn update(&self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {detail}", self.what));
        }
    }

    /// Says what it waits for: at once, and then not more often than people want to read.
    pub(crate) fn wait(&mut self, reason: &str, waited: Duration) {
        let seconds = waited.as_secs();
        self.update(&format!("{reason}, {seconds} s"));
        let due = self.said.is_none_or(|said| waited.saturating_sub(said) >= PATIENCE);
        // Most waits end with the first look; only the others are news.
        if self.bar.is_none() && seconds > 0 && due {
            self.said = Some(waited);
            self.progress.line("wait", &format!("{}: {reason}, {seconds} s", self.what));
        }
    }

    /// Ends the work with its result, such as `2 zips, 4.1 MB`; an empty text just says that it is done.
    pub(crate) fn done(self, result: &str) {
        let seconds = self.started.elapsed().as_secs();
        let result = if result.is_empty() { "done" } else { result };
        let text = if seconds == 0 {
            format!("{}: {result}", self.what)
        } else {
            format!("{}: {result} ({seconds} s)", self.what)
        };
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.progress.line("done", &text);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
