//! Carries out what was decided: opens the store, finds the model, runs jobs and keeps their results.
//!
//! Deliberately absent: the user's documents and output files. Whoever asks reads and writes those, with
//! its own rights; a node sees segments and gives results.

mod clock;
mod local;
mod models;

pub use clock::wall_clock_ms;
pub use local::{LocalRun, Outcome, RunError};
pub use models::{ModelPlace, ModelsError, add_model, find_model, list_models, model_places};
