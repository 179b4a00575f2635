//! What somebody who mistyped a key or a value probably meant.

use strsim::damerau_levenshtein;

/// Ends the message about an unknown key or value with the one that looks most like it, in place of all that there
/// are. Where none does, the message stays as it is.
pub(super) fn with_suggestion(message: &str) -> String {
    let suggestion = ["unknown field `", "unknown variant `"].into_iter().find_map(|start| {
        let (written, rest) = message.strip_prefix(start)?.split_once('`')?;
        let known = rest.strip_prefix(", expected")?.split('`').skip(1).step_by(2);
        Some(format!("{start}{written}`: did you mean `{}`?", nearest(written, known)?))
    });
    suggestion.unwrap_or_else(|| message.to_owned())
}

/// The candidate that takes the fewest slips to become what was written; none where it takes more than a third of its
/// letters.
fn nearest<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase().replace('-', "_");
    candidates
        .map(|candidate| (damerau_levenshtein(&written, candidate), candidate))
        .filter(|(slips, candidate)| slips * 3 <= candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_key_is_suggested_and_a_wild_guess_is_not() {
        let keys = "expected one of `timezone`, `backup`, `max_deletes`";
        for (written, meant) in [
            ("timezon", Some("timezone")),
            ("tiemzone", Some("timezone")),
            ("Backup", Some("backup")),
            ("max-deletes", Some("max_deletes")),
            ("bkp", None),
            ("", None),
        ] {
            let message = format!("unknown field `{written}`, {keys}");
            let expected = match meant {
                Some(meant) => format!("unknown field `{written}`: did you mean `{meant}`?"),
                None => message.clone(),
            };
            assert_eq!(with_suggestion(&message), expected);
        }
        let values = with_suggestion("unknown variant `kep`, expected `delete` or `keep`");
        assert_eq!(values, "unknown variant `kep`: did you mean `keep`?");
        assert_eq!(with_suggestion("missing field `backup`"), "missing field `backup`");
    }
}
