//! The few colours. `anstream` drops them where stdout is no terminal or `NO_COLOR` is set.

use std::fmt::{self, Display};

use anstyle::{AnsiColor, Style};

/// Something that goes right or is made.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Something that changes or needs a look.
pub(crate) const NOTICE: Style = AnsiColor::Yellow.on_default();
/// Something that goes wrong or is deleted.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// Titles.
pub(crate) const BOLD: Style = Style::new().bold();

/// A value in a style.
pub(crate) fn painted(style: Style, value: impl Display) -> impl Display {
    Painted { style, value }
}

struct Painted<T> {
    style: Style,
    value: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:#}", self.style, self.value, self.style)
    }
}
