//! The control socket: what commands ask of a node that runs, in HTTP on a Unix socket (DESIGN 9).
//!
//! Deliberately absent: the paths of documents. A command reads and writes those itself, with its caller's rights; what
//! crosses the socket are texts, results and figures.
//!
//! People and programs get JSON ([`view`]); the texts and results of a run cross in postcard ([`call`]), to one endpoint
//! that refuses another version.

mod bounded;
pub mod call;
mod client;
mod remote;
mod rights;
mod server;
mod sessions;
mod socket;
pub mod view;

pub use client::{Client, ClientError};
pub use remote::{RemoteOptions, RemoteRun};
pub use server::Server;
pub use socket::{SYSTEM_SOCKET, SocketError, SocketPlace};
