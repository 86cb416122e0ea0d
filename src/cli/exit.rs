//! Exit codes, which scripts rely on.

use std::process::ExitCode;

use crate::{api::ClientError, config::ConfigError, node::SwarmsError, store::LockError};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// All done.
    Done = 0,
    /// Done, but some documents or checks failed; each was named.
    SomeFailed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The machine would not: model, store, disk, output.
    Unable = 3,
    /// The data directory is in use by another process.
    Busy = 4,
    /// No node runs here.
    NotRunning = 5,
    /// Interrupted by a signal; what was computed is kept.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// The code of a command that could not go on.
    pub(super) fn of(error: &anyhow::Error) -> Self {
        if error.chain().any(|e| matches!(e.downcast_ref(), Some(LockError::Held { .. }))) {
            Self::Busy
        } else if error.chain().any(is_usage) {
            Self::Usage
        } else {
            Self::Unable
        }
    }
}

fn is_usage(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_swarms = error.downcast_ref().is_some_and(SwarmsError::is_usage);
    let is_clients = matches!(error.downcast_ref(), Some(ClientError::Usage(_)));
    is_swarms || is_clients || error.is::<ConfigError>() || error.is::<UsageError>()
}

/// A command line that parses and cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(pub(super) String);
