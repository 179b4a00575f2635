//! Texts with wildcards and variables.
//!
//! Source: IAM User Guide, "IAM policy elements: Variables and tags" and "IAM JSON policy elements: Resource".

use super::Context;

/// A text in which `*` stands for any characters and `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Token>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Any,
    One,
    Char(char),
}

impl Pattern {
    /// An action's name, which is the same in upper and lower case; to be matched against lower case.
    pub(crate) fn ignoring_case(text: &str) -> Self {
        Self(text.to_lowercase().chars().map(Token::of).collect())
    }

    /// The form of an ARN in AWS's reference, in which `${…}` stands for any text.
    pub(crate) fn form(text: &str) -> Self {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            tokens.extend(before.chars().map(Token::Char));
            tokens.push(Token::Any);
            rest = after.split_once('}').map_or("", |(_, tail)| tail);
        }
        tokens.extend(rest.chars().map(Token::Char));
        Self(tokens)
    }

    /// A text whose variables have their values in this context. What stands in a value is never a wildcard. `None`
    /// where a variable has no value: then nothing matches.
    pub(crate) fn resolving(text: &str, context: &Context) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (variable, tail) = after.split_once('}')?;
            tokens.extend(before.chars().map(Token::of));
            tokens.extend(value_of(variable, context)?.chars().map(Token::Char));
            rest = tail;
        }
        tokens.extend(rest.chars().map(Token::of));
        Some(Self(tokens))
    }

    /// The same with wildcards taken for what they look like.
    pub(crate) fn as_literal(&self) -> Self {
        let literal = |token: &Token| match token {
            Token::Any => Token::Char('*'),
            Token::One => Token::Char('?'),
            Token::Char(char) => Token::Char(*char),
        };
        Self(self.0.iter().map(literal).collect())
    }

    /// The same in lower case.
    pub(crate) fn lowercase(&self) -> Self {
        let lower = |token: &Token| match token {
            Token::Char(char) => Token::Char(char.to_ascii_lowercase()),
            wildcard => *wildcard,
        };
        Self(self.0.iter().map(lower).collect())
    }

    /// Whether the whole text is like it.
    pub(crate) fn matches(&self, text: &str) -> bool {
        matches(&self.0, &text.chars().collect::<Vec<_>>())
    }

    /// Whether an ARN is like it: part by part, so that no wildcard reaches over a colon but within the resource,
    /// the last part. Parts that are left out stand for anything.
    pub(crate) fn matches_arn(&self, arn: &str) -> bool {
        if self.0 == [Token::Any] {
            return true;
        }
        let colon = |token: &Token| *token == Token::Char(':');
        let mut parts = self.0.splitn(6, colon).collect::<Vec<_>>();
        parts.resize(6, &[Token::Any]);
        let found: Vec<Vec<char>> = arn.splitn(6, ':').map(|part| part.chars().collect()).collect();
        found.len() == 6 && parts.iter().zip(&found).all(|(part, found)| matches(part, found))
    }
}

impl Token {
    fn of(char: char) -> Self {
        match char {
            '*' => Self::Any,
            '?' => Self::One,
            other => Self::Char(other),
        }
    }
}

/// What `${…}` stands for: one of three characters, a key's only value, or the default that is given.
fn value_of(variable: &str, context: &Context) -> Option<String> {
    if let "*" | "?" | "$" = variable {
        return Some(variable.to_owned());
    }
    let (key, default) = match variable.split_once(',') {
        Some((key, default)) => (key.trim(), Some(default.trim().trim_matches('\'').to_owned())),
        None => (variable, None),
    };
    match context.get(key) {
        Some([value]) => Some(value.clone()),
        _ => default,
    }
}

fn matches(pattern: &[Token], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((Token::Any, after)), _) => (0..=text.len()).any(|taken| matches(after, &text[taken..])),
        (Some((Token::One, after)), Some((_, rest))) => matches(after, rest),
        (Some((Token::Char(wanted), after)), Some((found, rest))) => wanted == found && matches(after, rest),
        (Some(_), None) => false,
    }
}
