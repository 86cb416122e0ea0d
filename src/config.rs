//! Settings: defaults < file < `EDGE_*` < flags, each value known with where it came from.
//!
//! One table lists every setting, so that `config show`, `config check`, the environment and the file can
//! not disagree. A setting is here because somebody turns it; everything else is a documented constant.

mod example;
mod file;
mod settings;

pub use example::example;
pub use file::{ConfigError, ConfigFile, nearest};
pub use settings::{Config, LogFormat, LogLevel, SETTINGS, Setting, Source, Value};
