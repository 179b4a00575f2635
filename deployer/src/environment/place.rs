//! Where in a file's text a value stands.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};

/// `:line:column` of the value of a key such as `backup.schedule.expression`; nothing where it is not in the text.
pub(super) fn of(text: &str, key: &str) -> String {
    let path: Vec<&str> = key.split('.').collect();
    // The reader knows where it is only when something is wrong there.
    let error = Value { path: &path }.deserialize(serde_yaml::Deserializer::from_str(text)).err();
    let location = error.and_then(|error| error.location());
    location.map(|at| format!(":{}:{}", at.line(), at.column())).unwrap_or_default()
}

/// Fails at the value of a path, and passes over everything else.
struct Value<'a> {
    path: &'a [&'a str],
}

impl Value<'_> {
    fn check<E: Error>(&self) -> Result<(), E> {
        if self.path.is_empty() { Err(E::custom("here")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.check()?;
        while let Some(key) = map.next_key::<String>()? {
            match self.path {
                [first, rest @ ..] if key == *first => map.next_value_seed(Value { path: rest })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.check()
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.check()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.check()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.check()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.check()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.check()
    }
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn a_value_is_found_however_its_key_is_written() {
        let text = "a: 1\nb:\n  c: { d: x, e: 2.5 }\n  f:\n    g: true\n\"h\": 'i'\n";
        for (key, place) in [
            ("a", ":1:4"),
            ("b.c.d", ":3:11"),
            ("b.c.e", ":3:17"),
            ("b.f.g", ":5:8"),
            ("h", ":6:6"),
            ("b.x", ""),
            ("z", ""),
        ] {
            assert_eq!(of(text, key), place, "{key}");
        }
    }
}
