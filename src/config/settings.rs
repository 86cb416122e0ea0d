//! The table of settings and the values that they come to.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, time::Duration};

use super::{ConfigError, ConfigFile};

/// One setting.
pub struct Setting {
    /// Dotted key, as in the file.
    pub key: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    check: fn(&str) -> Result<(), String>,
}

/// Every setting, in the order in which it is shown.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "data_dir",
        help: "where identities, results and added models are kept",
        check: directory,
    },
    Setting { key: "identity", help: "which identity to use; each has its own store", check: identity },
    Setting { key: "model", help: "which model to embed with", check: model },
    Setting {
        key: "embed.chunk_tokens",
        help: "tokens in a chunk, special ones included (0: the model's limit)",
        check: chunk_tokens,
    },
    Setting {
        key: "embed.overlap_tokens",
        help: "tokens that a chunk repeats of the one before",
        check: overlap_tokens,
    },
    Setting { key: "embed.threads", help: "compute threads (0: one a core)", check: threads },
    Setting {
        key: "lend.threads",
        help: "compute threads for others while `edge run` runs (0: one a core)",
        check: threads,
    },
    Setting { key: "network.port", help: "UDP port (0: a free one, remembered)", check: port },
    Setting { key: "network.mdns", help: "find others on this network, and be found", check: switch },
    Setting {
        key: "network.bootstrap",
        help: "nodes to go to first: ID@HOST:PORT, comma-separated",
        check: bootstrap,
    },
    Setting {
        key: "control.socket",
        help: "path of the control socket (empty: beside the store)",
        check: anything,
    },
    Setting {
        key: "control.shared",
        help: "every user may see the status; root and group `edge` may do the rest",
        check: switch,
    },
    Setting { key: "store.keep_days", help: "days that results of a run are kept", check: keep_days },
    Setting { key: "log.level", help: "error, warn, info, debug or trace", check: level },
    Setting { key: "log.format", help: "text or json", check: format },
];

/// Where a value came from. Later ones win.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value as text, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// As it was written.
    pub text: String,
    /// By whom.
    pub source: Source,
}

/// How much is logged.
pub type LogLevel = tracing::Level;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Every setting with a valid value.
#[derive(Clone, Debug)]
pub struct Config {
    values: BTreeMap<&'static str, Value>,
}

impl Config {
    /// Lays the layers over each other and checks what comes out.
    ///
    /// `environment` gives a variable's value by name; `flags` are (setting, flag, value).
    ///
    /// # Errors
    /// [`ConfigError`] names the place of the wrong value and what it takes.
    pub fn resolve(
        file: Option<&ConfigFile>,
        environment: impl Fn(&str) -> Option<String>,
        flags: &[(&str, &str, String)],
        default_data_dir: &str,
    ) -> Result<Self, ConfigError> {
        let mut values = BTreeMap::new();
        for setting in SETTINGS {
            let mut value = Value { text: default(setting.key, default_data_dir), source: Source::Default };
            if let Some(found) = file.and_then(|file| file.value(setting.key)) {
                value = found.clone();
            }
            let name = setting.variable();
            if let Some(text) = environment(&name) {
                value = Value { text, source: Source::Environment(name) };
            }
            if let Some((_, flag, text)) = flags.iter().find(|(key, ..)| *key == setting.key) {
                value = Value { text: text.clone(), source: Source::Flag((*flag).to_owned()) };
            }
            if let Err(takes) = (setting.check)(&value.text) {
                return Err(ConfigError::Value { key: setting.key, value, takes });
            }
            values.insert(setting.key, value);
        }
        Ok(Self { values })
    }

    /// The value of a setting of the table.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// Where identities, results and added models are kept.
    pub fn data_dir(&self) -> PathBuf {
        PathBuf::from(self.text("data_dir"))
    }

    /// Data directory of the identity in use.
    pub fn identity_dir(&self) -> PathBuf {
        self.data_dir().join("identities").join(self.identity())
    }

    /// Name of the identity.
    pub fn identity(&self) -> &str {
        self.text("identity")
    }

    /// Name of the model.
    pub fn model(&self) -> &str {
        self.text("model")
    }

    /// Tokens in a chunk, special ones included; `None` for the model's limit.
    pub fn chunk_tokens(&self) -> Option<u32> {
        Some(self.number("embed.chunk_tokens")).filter(|&n| n > 0)
    }

    /// Tokens that a chunk repeats of the one before.
    pub fn overlap_tokens(&self) -> u32 {
        self.number("embed.overlap_tokens")
    }

    /// Compute threads; `None` for one a core.
    pub fn threads(&self) -> Option<usize> {
        Some(self.number::<usize>("embed.threads")).filter(|&n| n > 0)
    }

    /// Compute threads for others; `None` for one a core.
    pub fn lent_threads(&self) -> Option<usize> {
        Some(self.number::<usize>("lend.threads")).filter(|&n| n > 0)
    }

    /// UDP port; `None` for a free one that is remembered.
    pub fn port(&self) -> Option<u16> {
        Some(self.number::<u16>("network.port")).filter(|&n| n > 0)
    }

    /// Whether the node looks for others on its network, and lets itself be found.
    pub fn mdns(&self) -> bool {
        self.text("network.mdns") == "true"
    }

    /// Nodes to go to first, as they were written; each was checked to have an id and a host.
    pub fn bootstrap(&self) -> impl Iterator<Item = &str> {
        self.text("network.bootstrap").split(',').map(str::trim).filter(|text| !text.is_empty())
    }

    /// Path of the control socket; `None` for one beside the store.
    pub fn socket(&self) -> Option<PathBuf> {
        Some(self.text("control.socket")).filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// Whether every user of the machine may see the status.
    pub fn is_socket_shared(&self) -> bool {
        self.text("control.shared") == "true"
    }

    /// How long the results of a run are kept.
    pub fn keep(&self) -> Duration {
        Duration::from_secs(86_400 * self.number::<u64>("store.keep_days"))
    }

    /// How much is logged.
    pub fn log_level(&self) -> LogLevel {
        self.number("log.level")
    }

    /// How a log line looks.
    pub fn log_format(&self) -> LogFormat {
        if self.text("log.format") == "json" { LogFormat::Json } else { LogFormat::Text }
    }

    fn text(&self, key: &str) -> &str {
        self.values.get(key).map_or("", |value| value.text.as_str())
    }

    fn number<T: FromStr>(&self, key: &str) -> T {
        let parsed = self.text(key).parse().ok();
        #[expect(clippy::expect_used, reason = "`resolve` checked every value of the table")]
        parsed.expect("a checked setting parses")
    }
}

impl Setting {
    /// `embed.chunk_tokens` -> `EDGE_EMBED_CHUNK_TOKENS`.
    pub fn variable(&self) -> String {
        format!("EDGE_{}", self.key.replace('.', "_").to_ascii_uppercase())
    }
}

fn default(key: &str, data_dir: &str) -> String {
    match key {
        "data_dir" => data_dir,
        "identity" => "default",
        "model" => "all-minilm-l6-v2",
        "network.mdns" => "true",
        "network.bootstrap" | "control.socket" => "",
        "control.shared" => "false",
        "store.keep_days" => "30",
        "log.level" => "warn",
        "log.format" => "text",
        _ => "0",
    }
    .to_owned()
}

fn anything(_: &str) -> Result<(), String> {
    Ok(())
}

fn directory(text: &str) -> Result<(), String> {
    check(!text.is_empty(), "takes a directory")
}

fn identity(text: &str) -> Result<(), String> {
    let right = (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        && text.as_bytes()[0].is_ascii_alphanumeric();
    check(right, "takes 1 to 32 of a-z, 0-9, `-`, `_`, and begins with a letter or digit")
}

fn model(text: &str) -> Result<(), String> {
    check(!text.is_empty(), "takes a model's name, as `edge model list` shows it")
}

fn chunk_tokens(text: &str) -> Result<(), String> {
    let right = text.parse::<u32>().is_ok_and(|n| n == 0 || (16..=8192).contains(&n));
    check(right, "takes 16 to 8192 tokens, or 0 for the model's limit")
}

fn overlap_tokens(text: &str) -> Result<(), String> {
    check(text.parse::<u32>().is_ok_and(|n| n <= 4096), "takes 0 to 4096 tokens")
}

fn threads(text: &str) -> Result<(), String> {
    check(text.parse::<usize>().is_ok_and(|n| n <= 256), "takes 1 to 256 threads, or 0 for one a core")
}

fn port(text: &str) -> Result<(), String> {
    check(text.parse::<u16>().is_ok(), "takes a port from 1 to 65535, or 0 for a free one")
}

fn switch(text: &str) -> Result<(), String> {
    check(matches!(text, "true" | "false"), "takes true or false")
}

fn bootstrap(text: &str) -> Result<(), String> {
    let is_address =
        |text: &str| text.split_once('@').is_some_and(|(id, host)| id.len() == 52 && !host.is_empty());
    let right = text.split(',').map(str::trim).filter(|text| !text.is_empty()).all(is_address);
    check(right, "takes ID@HOST:PORT, the ID as `edge id` shows it, several of them with commas between")
}

fn keep_days(text: &str) -> Result<(), String> {
    check(text.parse::<u64>().is_ok_and(|n| n <= 36_500), "takes 0 to 36500 days")
}

fn level(text: &str) -> Result<(), String> {
    check(text.parse::<LogLevel>().is_ok(), "takes error, warn, info, debug or trace")
}

fn format(text: &str) -> Result<(), String> {
    check(matches!(text, "text" | "json"), "takes text or json")
}

fn check(right: bool, takes: &str) -> Result<(), String> {
    if right { Ok(()) } else { Err(takes.to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn resolve(
        file: &str,
        variable: Option<(&str, &str)>,
        flags: &[(&str, &str, String)],
    ) -> Result<Config, String> {
        let file = ConfigFile::parse(Path::new("edge.toml"), file).map_err(|e| e.to_string())?;
        let environment = |name: &str| variable.filter(|(n, _)| *n == name).map(|(_, v)| v.to_owned());
        Config::resolve(Some(&file), environment, flags, "/data").map_err(|e| e.to_string())
    }

    #[test]
    fn later_layers_win_and_are_named() {
        let file = "# mine\n[embed]\nthreads = 3\nchunk_tokens = 64\n";
        let flags = [("embed.threads", "--threads", "5".to_owned())];
        let config = resolve(file, Some(("EDGE_EMBED_THREADS", "4")), &flags).unwrap();
        assert_eq!(config.threads(), Some(5));
        assert_eq!(config.value("embed.threads").unwrap().source.to_string(), "--threads");
        let config = resolve(file, Some(("EDGE_EMBED_THREADS", "4")), &[]).unwrap();
        assert_eq!(config.threads(), Some(4));
        let config = resolve(file, None, &[]).unwrap();
        assert_eq!((config.threads(), config.chunk_tokens()), (Some(3), Some(64)));
        assert_eq!(config.value("embed.threads").unwrap().source.to_string(), "edge.toml:3");
        assert_eq!(config.value("model").unwrap().source, Source::Default);
        assert_eq!(config.identity_dir(), Path::new("/data/identities/default"));
    }

    #[test]
    fn a_wrong_key_names_its_line_and_the_nearest_right_one() {
        let error = resolve("identity = \"a\"\n[embed]\nthread = 3\n", None, &[]).unwrap_err();
        assert_eq!(error, "edge.toml:3: there is no setting `embed.thread`; did you mean `embed.threads`?");
        let error = resolve("xyz = 3\n", None, &[]).unwrap_err();
        assert!(
            error.starts_with("edge.toml:1: there is no setting `xyz`; the settings are data_dir, "),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_value_names_its_place_and_what_it_takes() {
        let error = resolve("[embed]\nthreads = \"many\"\n", None, &[]).unwrap_err();
        assert_eq!(
            error,
            "edge.toml:2: `embed.threads` takes 1 to 256 threads, or 0 for one a core; it is `many`"
        );
        let error = resolve("", Some(("EDGE_LOG_LEVEL", "loud")), &[]).unwrap_err();
        assert_eq!(
            error,
            "EDGE_LOG_LEVEL: `log.level` takes error, warn, info, debug or trace; it is `loud`"
        );
        let error = resolve("embed = 3\n", None, &[]).unwrap_err();
        assert!(error.starts_with("edge.toml:1: "), "{error}");
        let error = resolve("[embed]\nthreads = [1]\n", None, &[]).unwrap_err();
        assert!(error.starts_with("edge.toml:2: "), "{error}");
        let error = resolve("embed]\n", None, &[]).unwrap_err();
        assert!(error.contains("edge.toml"), "{error}");
    }

    #[test]
    fn every_default_is_valid() {
        Config::resolve(None, |_| None, &[], "/data").unwrap();
    }
}
