//! Authenticated QUIC connections between nodes, and bounded frames on their streams.
//!
//! Deliberately absent: what a frame means, who may do what, reconnecting, and which of two connections to one
//! peer stays. Resumption and 0-RTT are off for good: on a resumed connection no key is proven again.

mod limits;
mod memory;
mod patience;
mod public_key;
mod reset;
mod tls;

mod socket;

mod closed;
mod error;

mod connection;
mod endpoint;
mod exchange;

#[cfg(test)]
mod tests;

pub use closed::{CloseCode, Closed};
pub use connection::{Connection, Stats};
pub use endpoint::{Arrival, Endpoint};
pub use error::TransportError;
pub use exchange::Exchange;
pub use limits::{
    EXCHANGES_MAX, FRAME_BYTES_MAX, HALF_OPEN_MAX, HALF_OPEN_RETRY, HANDSHAKE_WAIT_MAX, IDLE_WAIT_MAX,
    KEEP_ALIVE,
};
pub use patience::underway;
pub use socket::{Listen, free_port};
