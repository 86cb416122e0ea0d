//! A job: one segment's text and all that decides what comes of it.

use super::{CHUNKER_VERSION, Carry, ChunkOptions, Syntax};
use crate::wire::{ContentKey, ModelHash};

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
