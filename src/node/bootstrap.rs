//! Bootstrap nodes whose names do not resolve yet.

use std::{net::SocketAddr, time::Duration};

use crate::discovery::BootstrapAddress;

/// Before a host name that does not resolve is tried again.
const RESOLVE_AGAIN: Duration = Duration::from_secs(30);

/// Resolves a name until it resolves. Cancel safe.
pub(super) async fn resolved(address: &BootstrapAddress) -> Vec<SocketAddr> {
    loop {
        match address.resolve().await {
            Ok(found) => return found,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%error, cause, "bootstrap node not found");
            }
        }
        tokio::time::sleep(RESOLVE_AGAIN).await;
    }
}
