//! Starts the log: key events on stderr, for people or as JSON; never the text of a document.

use std::panic;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};

use super::talk::LogWriter;
use crate::config::{Config, LogFormat};

/// From now on events of this level and above are written.
pub(super) fn start(config: &Config) {
    let level = LevelFilter::from_level(config.log_level());
    let lines =
        tracing_subscriber::fmt::layer().with_writer(|| LogWriter).with_ansi(false).with_target(false);
    let layer = match config.log_format() {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // Ours only: what tract or LMDB say of themselves helps nobody who runs edge.
    let ours = tracing_subscriber::filter::filter_fn(|event| event.target().starts_with("edge"));
    tracing_subscriber::registry().with(layer.with_filter(ours).with_filter(level)).init();
    panic::set_hook(Box::new(|panic| {
        // Not its message: that may quote what it choked on.
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(place, thread, "panic");
    }));
}
