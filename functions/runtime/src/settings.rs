//! Reads the function's settings.

use serde::de::DeserializeOwned;
use snapwarden_domain::excerpt::excerpt;
use snapwarden_domain::settings::VARIABLE;

/// The settings in the environment variable [`VARIABLE`], or which variable and field is wrong and why.
pub(crate) fn read<S: DeserializeOwned>(variable: impl Fn(&str) -> Option<String>) -> Result<S, String> {
    let Some(text) = variable(VARIABLE) else {
        return Err(format!("the environment variable {VARIABLE} is not set: deploy the function again"));
    };
    let mut json = serde_json::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let reason = excerpt(&error.into_inner());
        match field.as_str() {
            "." => format!("the environment variable {VARIABLE}: {reason}"),
            _ => format!("the environment variable {VARIABLE}, field {field}: {reason}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use snapwarden_domain::settings::CleanupSettings;

    use super::*;

    fn refusal(text: Option<&str>) -> String {
        read::<CleanupSettings>(|_| text.map(str::to_owned)).unwrap_err()
    }

    #[test]
    fn wrong_settings_name_the_variable_and_the_field() {
        assert!(refusal(None).contains("SNAPWARDEN_SETTINGS is not set"));
        assert!(refusal(Some("")).contains("SNAPWARDEN_SETTINGS: EOF"));
        let policy =
            r#"{"environment": "prod", "alias_arn": "arn", "timezone": "UTC", "policy": {"floor": -1}}"#;
        assert!(refusal(Some(policy)).contains("field policy.floor: invalid value: integer `-1`"));
        let zone = r#"{"environment": "prod", "alias_arn": "arn", "timezone": "Mars"}"#;
        assert!(refusal(Some(zone)).contains("field timezone: `Mars` is not a time zone"));
        let unknown = r#"{"environment": "prod", "floor": 1}"#;
        assert!(refusal(Some(unknown)).contains("unknown field `floor`"));
    }
}
