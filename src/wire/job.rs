//! A job as it crosses a socket and lies in a queue: a segment's text and all that decides what comes of it.

use serde::{Deserialize, Serialize};

use super::{ContentKey, ModelHash};

/// How the boundaries of a text are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Syntax {
    /// Prose: blank lines part paragraphs, a lone line end is white space.
    Plain,
    /// Prose with headings, lists, tables and fenced code.
    Markdown,
    /// Lines that mean something each: source code, configuration, records, logs.
    Code,
}

/// A Markdown code fence that has been opened and not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// The byte it is made of, `` ` `` or `~`.
    pub marker: u8,
    /// How many markers opened it, 255 standing for more as well.
    pub length: u8,
}

/// What crosses a cut. The default is the start of a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Carry {
    /// A code fence that is open.
    pub fence: Option<Fence>,
    /// The cut fell within a line, so what follows it cannot be a heading or a fence.
    pub mid_line: bool,
}

/// Options that decide boundaries; part of the content key, so every field is serialised in this
/// order for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkOptions {
    /// The most tokens of a chunk; special tokens are not counted.
    pub tokens_max: u32,
    /// The most tokens that a chunk repeats of the one before it.
    pub overlap_tokens: u32,
}

/// One segment to be chunked and embedded. Version 1, frozen.
///
/// `key` is a function of the other fields and of the model's prefix, so whoever has the model can tell a forged one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// What its result is stored under.
    pub key: ContentKey,
    /// Model to embed with.
    pub model: ModelHash,
    /// Version of the rules by which chunks are cut.
    pub chunker: u8,
    /// Limits of a chunk.
    pub options: ChunkOptions,
    /// How boundaries are found.
    pub syntax: Syntax,
    /// What the segments before left open.
    pub carry: Carry,
    /// Where the body begins, in bytes of `text`; what stands before it may be repeated by an overlap.
    pub body_start: u32,
    /// Lead and body.
    pub text: String,
}
