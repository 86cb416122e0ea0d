//! Runs the real program on real files: one binary, for each links tract again.

mod bad_input;
mod cli;
mod edge;
mod embed;
mod model;
mod resume;
mod store;
