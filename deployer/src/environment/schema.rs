//! The JSON schema of environment files: editors complete keys by it and underline what is wrong.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Environment;

/// The schema of an environment file, made from the types that read it and their documentation.
pub fn schema() -> Value {
    // Draft 7 is what the YAML language server knows best.
    SchemaSettings::draft07().into_generator().into_root_schema_for::<Environment>().into()
}
