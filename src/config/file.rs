//! The configuration file: TOML, where a wrong key or value is told with its line.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::{SETTINGS, Source, Value};

/// A configuration file is written by a person.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why the settings are not valid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file does not read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{}:{line}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser said.
        reason: String,
    },
    /// No such setting.
    #[error("{}:{line}: there is no setting `{key}`; {hint}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key, dotted.
        key: String,
        /// The nearest right one, or all.
        hint: String,
    },
    /// A value that a setting does not take.
    #[error("{}: `{key}` {takes}; it is `{}`", value.source, value.text)]
    Value {
        /// The setting.
        key: &'static str,
        /// The value and its place.
        value: Value,
        /// What it takes.
        takes: String,
    },
}

/// The settings of one file.
#[derive(Clone, Debug, Default)]
pub struct ConfigFile {
    values: BTreeMap<String, Value>,
}

impl ConfigFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`]; an absent file is [`io::ErrorKind::NotFound`] in `Read`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        fs::File::open(path)
            .map_err(read)?
            .take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .map_err(read)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(read(io::Error::other("it is larger than 1 MiB")));
        }
        Self::parse(path, &text)
    }

    /// Reads `text`, which errors will call `path`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let line_of = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: line_of(error.span().map_or(0, |span| span.start)),
            reason: error.message().to_owned(),
        })?;
        let mut file = Self::default();
        file.collect(path, &line_of, "", table.get_ref())?;
        Ok(file)
    }

    fn collect(
        &mut self,
        path: &Path,
        line_of: &dyn Fn(usize) -> usize,
        prefix: &str,
        table: &DeTable<'_>,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let line = line_of(name.span().start);
            let inner = format!("{key}.");
            let is_section = SETTINGS.iter().any(|setting| setting.key.starts_with(&inner));
            match value.get_ref() {
                DeValue::Table(table) if is_section => self.collect(path, line_of, &inner, table)?,
                found => {
                    let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
                        return Err(ConfigError::Key { path: path.to_owned(), line, hint: hint(&key), key });
                    };
                    let source = Source::File { path: path.to_owned(), line };
                    let Some(text) = scalar(found) else {
                        let value = Value { text: "a list or a table".to_owned(), source };
                        let takes = "takes one text or number".to_owned();
                        return Err(ConfigError::Value { key: setting.key, value, takes });
                    };
                    self.values.insert(key, Value { text, source });
                }
            }
        }
        Ok(())
    }

    /// What the file says of a setting.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// The most similar of `names`, where one is similar enough to be meant.
pub fn nearest(key: &str, names: impl Iterator<Item = String>) -> Option<String> {
    names
        .map(|name| (strsim::jaro_winkler(key, &name), name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.8)
        .map(|(_, name)| name)
}

fn hint(key: &str) -> String {
    match nearest(key, SETTINGS.iter().map(|setting| setting.key.to_owned())) {
        Some(right) => format!("did you mean `{right}`?"),
        None => format!("the settings are {}", SETTINGS.iter().map(|s| s.key).collect::<Vec<_>>().join(", ")),
    }
}
