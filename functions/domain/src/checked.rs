//! Reading values that are checked while they are read.
//!
//! `#[serde(try_from = "…")]` checks a value only after the reader has passed it, and an error then names the place of
//! whatever is around it. A check inside the visitor fails where the value stands: line and column are the value's.

use std::fmt::{self, Display};
use std::marker::PhantomData;

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// Reads a text and makes a `T` of it.
pub fn text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<String, Error: Display>,
{
    deserializer.deserialize_str(Text(PhantomData))
}

/// Reads a whole number and makes a `T` of it.
pub fn number<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64, Error: Display>,
{
    deserializer.deserialize_i64(Number(PhantomData))
}

struct Text<T>(PhantomData<T>);

impl<T: TryFrom<String, Error: Display>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::try_from(text.to_owned()).map_err(E::custom)
    }
}

struct Number<T>(PhantomData<T>);

impl<T: TryFrom<i64, Error: Display>> Visitor<'_> for Number<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        T::try_from(number).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::try_from(i64::try_from(number).unwrap_or(i64::MAX)).map_err(E::custom)
    }
}
