//! As much of a message as people read, where it repeats what a file or an event says.
//!
//! Parsers put the value that they refuse into their messages, whole: a misplaced megabyte of text would fill a log, a
//! terminal and a notification (which SNS refuses above 256 KB).

/// The longest message, in characters.
const MAX: usize = 1_000;

/// `error` as text: whole where it is short, else its beginning and its end with `[…]` between them. The end has the
/// line and the column.
pub fn excerpt(error: &(impl ToString + ?Sized)) -> String {
    let mut text = error.to_string();
    let start = |characters: usize| text.char_indices().nth(characters).map(|(at, _)| at);
    if start(MAX).is_some() {
        let gap = start(MAX * 3 / 4)..start(text.chars().count() - MAX / 4);
        if let (Some(from), Some(to)) = (gap.start, gap.end) {
            text.replace_range(from..to, "[…]");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place at the end is what somebody needs to find the mistake.
    #[test]
    fn what_is_too_long_to_read_keeps_its_beginning_and_its_end() {
        let long = excerpt(&format!("unknown field `{}` at line 3", "é".repeat(100_000)));
        assert_eq!(long.chars().count(), MAX + "[…]".chars().count());
        assert!(long.starts_with("unknown field `éé") && long.ends_with("éé` at line 3"), "{long}");
    }

    #[test]
    fn what_people_read_is_left_whole() {
        for text in ["", "unknown field `regoin`", &"é".repeat(MAX)] {
            assert_eq!(excerpt(text), text);
        }
    }
}
