//! Turns text into chunks and vectors: segment, chunk, tokenise, batch, embed.
//!
//! Deliberately absent: files of documents, the store, sockets. A job comes with its text and leaves as a
//! result; who asked and who keeps it is `node`'s business. Compute runs on dedicated OS threads that hold
//! no lock shared with anything else.

mod batch;
mod bert;
mod chunk;
mod embed;
mod engine;
mod folder;
mod golden;
mod job;
mod pace;
mod pool;
mod segment;
mod tokens;
mod tract;

pub use batch::{BATCH_TOKENS_MAX, batch};
pub use bert::BertModel;
pub use chunk::{CHUNK_BYTES_PER_TOKEN_MAX, CHUNKER_VERSION, ChunkOptionsError, chunks};
pub use embed::{EmbedError, Embedder, Stop};
pub use engine::{Engine, JobError, Took};
pub use folder::{Manifest, ModelError, ModelFolder, Pooling};
pub use golden::{GoldenReport, check as check_golden};
pub use job::{Job, SpecError, content_key};
pub use pace::{Pace, Unpaced, unpaced};
pub use pool::{Computed, MakePace, Pool, WindowId};
pub use segment::{SEGMENT_BYTES_MAX, cut, lead_start};
pub use tokens::{TokenError, Tokens};
pub use tract::TractModel;

pub use crate::wire::{Carry, ChunkOptions, Syntax};
