//! A job: one segment's text and all that decides what comes of it.

use super::{
    CHUNKER_VERSION, Carry, ChunkOptions, ChunkOptionsError, SEGMENT_BYTES_MAX, Syntax,
    segment::LEAD_BYTES_MAX,
};
use crate::wire::{ContentKey, JobSpec, ModelHash};

/// One segment to be chunked and embedded.
#[derive(Clone, Debug)]
pub struct Job {
    /// What its result is stored under.
    pub key: ContentKey,
    /// Lead and body: the body are the segment's bytes, the lead is what stands before it and may be
    /// repeated by an overlap.
    pub text: String,
    /// Where the body begins, in bytes of `text`.
    pub body_start: usize,
    /// Limits of a chunk.
    pub options: ChunkOptions,
    /// How boundaries are found.
    pub syntax: Syntax,
    /// What the segments before left open.
    pub carry: Carry,
}

/// Why a job that somebody sent is none that can be run here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// Another version of the rules would cut other chunks.
    #[error("its chunks are cut by rules of version {found}, this edge has version {CHUNKER_VERSION}")]
    Chunker {
        /// Version asked for.
        found: u8,
    },
    /// Another model.
    #[error("it is for the model {}, which is not here", &wanted.to_string()[..8])]
    Model {
        /// Model asked for.
        wanted: ModelHash,
    },
    /// The limits of a chunk are none.
    #[error("its options are wrong")]
    Options(#[source] ChunkOptionsError),
    /// Longer than any segment, or its body does not begin within it.
    #[error("its text of {bytes} bytes with a body from {body_start} is no segment")]
    Text {
        /// Length of the text.
        bytes: usize,
        /// Where the body is said to begin.
        body_start: u32,
    },
    /// The key is not that of what was sent: its result would be kept under another's name.
    #[error("its key is not that of its text")]
    Key,
}

impl Job {
    /// The job as it crosses a socket.
    pub fn into_spec(self, model: ModelHash) -> JobSpec {
        let Self { key, text, body_start, options, syntax, carry } = self;
        let body_start = u32::try_from(body_start).unwrap_or(u32::MAX);
        JobSpec { key, model, chunker: CHUNKER_VERSION, options, syntax, carry, body_start, text }
    }

    /// The job that somebody sent, for this model with this prefix, after checking all that can be wrong with it.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn from_spec(spec: JobSpec, model: &ModelHash, prefix: &str) -> Result<Self, SpecError> {
        let JobSpec { key, model: wanted, chunker, options, syntax, carry, body_start, text } = spec;
        if chunker != CHUNKER_VERSION {
            return Err(SpecError::Chunker { found: chunker });
        }
        if wanted != *model {
            return Err(SpecError::Model { wanted });
        }
        options.validate().map_err(SpecError::Options)?;
        let bytes = text.len();
        let start = body_start as usize;
        let is_segment = start <= LEAD_BYTES_MAX && bytes.saturating_sub(start) <= SEGMENT_BYTES_MAX;
        let Some((lead, body)) = text.split_at_checked(start).filter(|_| is_segment) else {
            return Err(SpecError::Text { bytes, body_start });
        };
        if content_key(lead, body, syntax, carry, options, model, prefix) != key {
            return Err(SpecError::Key);
        }
        Ok(Self { key, text, body_start: start, options, syntax, carry })
    }
}

/// The content key of a segment: everything that its chunks and vectors depend on, and nothing else
/// (DESIGN 5). Its preimage is frozen: a change would make everybody compute everything again.
pub fn content_key(
    lead: &str,
    body: &str,
    syntax: Syntax,
    carry: Carry,
    options: ChunkOptions,
    model: &ModelHash,
    prefix: &str,
) -> ContentKey {
    let mut hasher = blake3::Hasher::new_derive_key("edge 2026-11 content key of a segment, version 1");
    #[expect(clippy::expect_used, reason = "plain data always encodes")]
    let head =
        postcard::to_allocvec(&(CHUNKER_VERSION, options, syntax, carry, model, prefix, lead.len() as u64))
            .expect("plain data always encodes");
    hasher.update(&(head.len() as u64).to_le_bytes()).update(&head);
    hasher.update(lead.as_bytes()).update(body.as_bytes());
    ContentKey::from_bytes(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that was ever stored lies under such keys.
    #[test]
    fn the_key_of_version_1() {
        let options = ChunkOptions { tokens_max: 254, overlap_tokens: 16 };
        let model = ModelHash::from_bytes([1; 32]);
        let key =
            content_key("lead ", "body", Syntax::Markdown, Carry::default(), options, &model, "passage: ");
        assert_eq!(key.to_string(), "5e3219adb40f047ca4d4206a23170532db04a9054c7c433708d3f588ae8c605e");
    }

    #[test]
    fn what_somebody_sent_is_checked_before_it_runs() {
        let options = ChunkOptions { tokens_max: 254, overlap_tokens: 0 };
        let model = ModelHash::from_bytes([1; 32]);
        let (syntax, carry) = (Syntax::Plain, Carry::default());
        let key = content_key("é ", "body", syntax, carry, options, &model, "");
        let job = Job { key, text: "é body".into(), body_start: 3, options, syntax, carry };
        let spec = job.into_spec(model);
        let check = |change: &dyn Fn(&mut JobSpec)| {
            let mut spec = spec.clone();
            change(&mut spec);
            Job::from_spec(spec, &model, "")
        };
        assert_eq!(check(&|_| {}).unwrap().text, "é body");
        let wrong = |change: &dyn Fn(&mut JobSpec)| check(change).unwrap_err();
        assert_eq!(wrong(&|s| s.chunker = 9), SpecError::Chunker { found: 9 });
        let other = ModelHash::from_bytes([2; 32]);
        assert_eq!(wrong(&|s| s.model = other), SpecError::Model { wanted: other });
        assert!(matches!(wrong(&|s| s.options.tokens_max = 0), SpecError::Options(_)));
        assert!(matches!(wrong(&|s| s.body_start = 1), SpecError::Text { .. }), "within a char");
        assert!(matches!(wrong(&|s| s.body_start = 99), SpecError::Text { .. }));
        assert!(matches!(wrong(&|s| s.text = "x".repeat(40_000)), SpecError::Text { .. }));
        assert_eq!(wrong(&|s| s.text = "é Body".into()), SpecError::Key);
        assert_eq!(wrong(&|s| s.syntax = Syntax::Code), SpecError::Key);
        assert_eq!(Job::from_spec(spec.clone(), &model, "passage: ").unwrap_err(), SpecError::Key);
    }

    #[test]
    fn everything_that_matters_changes_the_key() {
        let options = ChunkOptions { tokens_max: 254, overlap_tokens: 0 };
        let model = ModelHash::from_bytes([1; 32]);
        let key = |lead, body, syntax, options, model, prefix| {
            content_key(lead, body, syntax, Carry::default(), options, model, prefix)
        };
        let base = key("ab", "cd", Syntax::Plain, options, &model, "");
        assert_eq!(base, key("ab", "cd", Syntax::Plain, options, &model, ""));
        let other = ModelHash::from_bytes([2; 32]);
        let wider = ChunkOptions { overlap_tokens: 1, ..options };
        for different in [
            key("a", "bcd", Syntax::Plain, options, &model, ""),
            key("ab", "ce", Syntax::Plain, options, &model, ""),
            key("ab", "cd", Syntax::Code, options, &model, ""),
            key("ab", "cd", Syntax::Plain, wider, &model, ""),
            key("ab", "cd", Syntax::Plain, options, &other, ""),
            key("ab", "cd", Syntax::Plain, options, &model, "passage: "),
        ] {
            assert_ne!(base, different);
        }
    }
}
