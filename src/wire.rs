//! What crosses a socket or lies on disk: ids, records and their exact bytes.
//!
//! Deliberately absent: files, sockets, clocks, entropy. A type in this room is frozen once a release
//! has written it; a change is a new version with its upgrade.

mod id;
mod job;
mod record;
mod result;
mod run;

pub use id::{ContentKey, IdError, ModelHash, PeerId, RunId};
pub use job::{Carry, ChunkOptions, Fence, JobSpec, Syntax};
pub use record::{RecordError, open, seal};
pub use result::{ChunkSpan, ResultError, SegmentResult, UNIT_NORM_TOLERANCE};
pub use run::{Run, RunState};
