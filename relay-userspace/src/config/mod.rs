//! The configuration: read, checked, and explained where it is wrong.
//!
//! `file.rs` mirrors what is written, `check.rs` turns it into `checked.rs`, and `default.toml` is
//! both the manual of every key and the source of its default.

mod check;
mod checked;
mod error;
mod file;
mod parse;
mod show;

use std::path::{Path, PathBuf};

pub use checked::*;
pub use error::{ConfigError, ConfigErrors};
pub use show::show;

/// The manual of every key, with its default: what `postern config default` prints.
pub const DEFAULT: &str = include_str!("default.toml");

/// Where the configuration is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/postern/postern.toml";

/// Reads and checks a configuration file.
///
/// # Errors
/// Everything that is wrong in the file, each with its place, or why it cannot be read.
pub fn load(file: &Path) -> Result<Config, ConfigErrors> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let source = error::Source { file: file.into(), text: "" };
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "no such file; `postern config default` prints one to start from".into()
            }
            std::io::ErrorKind::PermissionDenied => {
                "may not be read; run as root or as the user that owns it".into()
            }
            _ => format!("cannot be read: {error}"),
        };
        ConfigErrors(vec![source.error(None, "", "", remedy)])
    })?;
    parse(file, &text)
}

/// The configuration without a file: relays for nobody, closed in every respect.
pub fn embedded() -> Config {
    parse(Path::new("default.toml"), "").expect("the embedded configuration is checked by a test")
}

/// Checks a configuration text; `file` is what errors call it.
///
/// # Errors
/// As [`load`].
pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigErrors> {
    let source = error::Source { file: PathBuf::from(file), text };
    let written: file::File = toml::from_str(text).map_err(|error| {
        let problem = error.message().lines().collect::<Vec<_>>().join("; ");
        ConfigErrors(vec![source.error(error.span(), "", "", problem)])
    })?;
    let default = toml::from_str(DEFAULT).expect("default.toml is checked by a test");
    let mut check = check::Check { source, default, errors: Vec::new(), place: None };
    let config = check.config(&written);
    let mut errors = check.errors;
    match config {
        Some(config) if errors.is_empty() => Ok(config),
        _ => {
            errors.sort_by_key(|error| (error.line, error.column));
            Err(ConfigErrors(errors))
        }
    }
}

#[cfg(test)]
mod tests;
