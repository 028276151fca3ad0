//! The configuration file, JSON: `bmi_agent_api::config::BrokerConfig`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bmi_agent_api::config::BrokerConfig;

/// The longest file that is read, in bytes: a real one has less than one KiB.
const LONGEST: u64 = 64 * 1024;

/// Why there is no configuration. It never quotes the file: there is a key in it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file system said no.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not one.
    #[error("{path}, line {line}, is not what a broker is told: {category:?} error")]
    Form {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// Of which kind.
        category: serde_json::error::Category,
    },
    /// Values that cannot work.
    #[error("{path}: {fault}")]
    Fault {
        /// The file.
        path: PathBuf,
        /// Which.
        fault: &'static str,
    },
}

/// Reads and checks a configuration.
///
/// # Errors
/// When it is absent or wrong.
pub fn load(path: &Path) -> Result<BrokerConfig, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).map_err(read)?.take(LONGEST).read_to_string(&mut text).map_err(read)?;
    let config: BrokerConfig = serde_json::from_str(&text).map_err(|error| ConfigError::Form {
        path: path.to_owned(),
        line: error.line(),
        category: error.classify(),
    })?;
    match fault(&config) {
        None => Ok(config),
        Some(fault) => Err(ConfigError::Fault { path: path.to_owned(), fault }),
    }
}

fn fault(config: &BrokerConfig) -> Option<&'static str> {
    let names: BTreeSet<&str> = config.exports.iter().map(|export| export.name.as_str()).collect();
    let images: BTreeSet<_> =
        config.exports.iter().map(|export| (&export.namespace, &export.image)).collect();
    if config.exports.is_empty() {
        Some("there is no export")
    } else if names.len() < config.exports.len() {
        Some("two exports have one name")
    } else if images.len() < config.exports.len() {
        Some("two exports are one image")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"socket":"/s","mon_host":"127.0.0.1:3300","pool":"bmi","user":"bmi-1","key":"QUJD",
        "exports":[{"name":"0","namespace":"a","image":"i","read_only":false}]}"#;

    fn load_text(text: &str) -> Result<BrokerConfig, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        load(file.path())
    }

    #[test]
    fn a_configuration_is_read_strictly_and_never_quoted() {
        assert_eq!(load_text(GOOD).unwrap().exports.len(), 1);
        let export = r#"{"name":"0","namespace":"a","image":"i","read_only":false}"#;
        let twice = GOOD.replace(export, &format!("{export},{export}"));
        let same_image = GOOD.replace(export, &format!("{export},{}", export.replace("\"0\"", "\"1\"")));
        for bad in [
            GOOD.replace(export, ""),
            twice,
            same_image,
            GOOD.replace("\"pool\"", "\"pol\""),
            GOOD.replace("\"QUJD\"", "\"QUJD QUJD\""),
            GOOD.replace("\"QUJD\"", "QUJD"),
        ] {
            let error = bmi_types::chain(&load_text(&bad).unwrap_err());
            assert!(!error.contains("QUJD"), "{error}");
        }
    }
}
