//! The table of settings and the values that they come to.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, sync::LazyLock, time::Duration};

use super::{ConfigError, ConfigFile};
use crate::proto::budget::{BUDGET_SETTINGS, BudgetSetting, Limits, Profile};

/// One setting.
#[derive(Clone, Copy)]
pub struct Setting {
    /// Dotted key, as in the file.
    pub key: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    check: Check,
}

#[derive(Clone, Copy)]
enum Check {
    Text(fn(&str) -> Result<(), String>),
    Budget(&'static BudgetSetting),
}

impl Check {
    fn of(self, text: &str) -> Result<(), String> {
        match self {
            Self::Text(check) => check(text),
            Self::Budget(budget) => budget.check(text).map_err(|error| error.to_string()),
        }
    }
}

/// Every setting, in the order in which it is shown: the budget's have a table of their own beside the policy.
pub static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
    let budget = BUDGET_SETTINGS.iter().map(|budget| Setting {
        key: budget.key,
        help: budget.help,
        check: Check::Budget(budget),
    });
    let (before, after) = OWN.split_at(OWN.iter().take_while(|own| !own.key.starts_with("budget.")).count());
    before.iter().copied().chain(budget).chain(after.iter().copied()).collect()
});

const OWN: &[Setting] = &[
    Setting {
        key: "data_dir",
        help: "where identities, results and added models are kept",
        check: Check::Text(directory),
    },
    Setting {
        key: "identity",
        help: "which identity to use; each has its own store",
        check: Check::Text(identity),
    },
    Setting { key: "model", help: "which model to embed with", check: Check::Text(model) },
    Setting {
        key: "embed.chunk_tokens",
        help: "tokens in a chunk, special ones included (0: the model's limit)",
        check: Check::Text(chunk_tokens),
    },
    Setting {
        key: "embed.overlap_tokens",
        help: "tokens that a chunk repeats of the one before",
        check: Check::Text(overlap_tokens),
    },
    Setting { key: "embed.threads", help: "compute threads (0: one a core)", check: Check::Text(threads) },
    Setting {
        key: "lend.threads",
        help: "compute threads for others while `edge run` runs (0: one a core)",
        check: Check::Text(threads),
    },
    Setting {
        key: "lend.priority",
        help: "idle (gives way to all else here) or normal (a machine that does nothing else)",
        check: Check::Text(priority),
    },
    Setting {
        key: "budget.green_source",
        help: "absolute path or http:// URL of the number of `budget.green` (empty: none)",
        check: Check::Text(green_source),
    },
    Setting {
        key: "budget.green_age_minutes",
        help: "how old that number may be",
        check: Check::Text(green_age),
    },
    Setting { key: "network.port", help: "UDP port (0: a free one, remembered)", check: Check::Text(port) },
    Setting {
        key: "network.mdns",
        help: "find others on this network, and be found",
        check: Check::Text(switch),
    },
    Setting {
        key: "network.bootstrap",
        help: "nodes to go to first: ID@HOST:PORT, comma-separated",
        check: Check::Text(bootstrap),
    },
    Setting {
        key: "control.socket",
        help: "path of the control socket (empty: beside the store)",
        check: Check::Text(anything),
    },
    Setting {
        key: "control.shared",
        help: "every user may see the status; root and group `edge` may do the rest",
        check: Check::Text(switch),
    },
    Setting {
        key: "store.keep_days",
        help: "days that results of a run are kept",
        check: Check::Text(keep_days),
    },
    Setting { key: "log.level", help: "error, warn, info, debug or trace", check: Check::Text(level) },
    Setting { key: "log.format", help: "text or json", check: Check::Text(format) },
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
        for setting in SETTINGS.iter() {
            let text = match setting.check {
                // The profile comes first, and sets the defaults of the others.
                Check::Budget(budget) => budget.default_of(profile(&values)).to_owned(),
                Check::Text(_) => default(setting.key, default_data_dir),
            };
            let mut value = Value { text, source: Source::Default };
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
            if let Err(takes) = setting.check.of(&value.text) {
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

    /// Whether threads that compute for others give way to everything else.
    pub fn gives_way(&self) -> bool {
        self.text("lend.priority") == "idle"
    }

    /// What others may have of this machine.
    ///
    /// # Errors
    /// The settings that contradict each other; each alone is right.
    pub fn limits(&self) -> Result<Limits, String> {
        let limits = Limits::resolve(|key| self.values.get(key).map(|value| value.text.as_str()));
        let limits = limits.map_err(|(key, error)| format!("`{key}` {error}"))?;
        if limits.green.is_some() && self.green_source().is_none() {
            return Err(
                "`budget.green` wants a number, and `budget.green_source` says from nowhere".to_owned()
            );
        }
        Ok(limits)
    }

    /// Where the owner's own number is, that says how green the power is.
    pub fn green_source(&self) -> Option<&str> {
        Some(self.text("budget.green_source")).filter(|text| !text.is_empty())
    }

    /// How old that number may be.
    pub fn green_age(&self) -> Duration {
        Duration::from_secs(60 * self.number::<u64>("budget.green_age_minutes"))
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
        "lend.priority" => "idle",
        "budget.green_source" => "",
        "budget.green_age_minutes" => "60",
        "store.keep_days" => "30",
        "log.level" => "warn",
        "log.format" => "text",
        _ => "0",
    }
    .to_owned()
}

/// The profile, where it stands already.
fn profile(values: &BTreeMap<&'static str, Value>) -> Profile {
    values.get("budget.profile").and_then(|value| value.text.parse().ok()).unwrap_or_default()
}

fn priority(text: &str) -> Result<(), String> {
    check(matches!(text, "idle" | "normal"), "takes idle or normal")
}

fn green_source(text: &str) -> Result<(), String> {
    let right = text.is_empty() || text.starts_with('/') || text.starts_with("http://");
    check(
        right,
        "takes an absolute path or an http:// URL; with TLS edge does not fetch it, a timer of your own may",
    )
}

fn green_age(text: &str) -> Result<(), String> {
    check(text.parse::<u64>().is_ok_and(|n| (1..=10_080).contains(&n)), "takes 1 to 10080 minutes")
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
mod tests;
