//! Runs the real program on real files: one binary, for each links tract again.

#![expect(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod bad_input;
mod bad_network;
mod budget;
mod cli;
mod control;
mod discovery;
mod edge;
mod embed;
mod forged;
mod host;
mod hosts;
mod identities;
mod kills;
mod lending;
mod members;
mod mesh;
mod model;
mod namespace;
mod resume;
mod rights;
mod service;
mod sim;
mod store;
mod strangers;
mod swarm;
