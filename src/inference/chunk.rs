//! Cuts a segment into chunks that a model can take whole, by its tokens and its syntax alone.
//!
//! Deliberately absent: the tokenizer. Chunks are byte ranges of the text that was tokenised. A cut
//! falls inside a token only where a token, or a single char, exceeds the limits of a chunk. A cut
//! at white space outside tokens lets the caller reuse the token ids between two such cuts; any
//! other slice must be tokenised anew, because its first or last word may now read differently.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use super::segment::{Line, Lines, Strength, TOKEN_BYTES_MAX, ends_sentence, is_unspaced};
use crate::wire::{Carry, ChunkOptions, Syntax};

/// Version of the rules of this file and of `segment`; part of the content key, so it must grow
/// whenever a boundary may move.
pub const CHUNKER_VERSION: u8 = 1;

/// Bytes that a chunk may hold per token of its limit. Bounds runs that yield few tokens, such as
/// long white space or encoded words that become one unknown token.
pub const CHUNK_BYTES_PER_TOKEN_MAX: usize = TOKEN_BYTES_MAX;

/// The smallest limit, in tokens, at which sentences still leave a trace in the chunks.
const TOKENS_MAX_MIN: u32 = 8;

/// Why chunk options are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkOptionsError {
    /// The limit leaves no room for a sentence.
    #[error("chunks of at most {tokens_max} tokens are too small, the least is {TOKENS_MAX_MIN}")]
    TokensMaxTooSmall {
        /// The limit asked for, in tokens.
        tokens_max: u32,
    },
    /// More than half of each chunk would be repetition.
    #[error("an overlap of {overlap_tokens} tokens exceeds half of {tokens_max} tokens")]
    OverlapTooLarge {
        /// The overlap asked for, in tokens.
        overlap_tokens: u32,
        /// The limit asked for, in tokens.
        tokens_max: u32,
    },
}

impl ChunkOptions {
    /// Checks that chunks are large enough and that at least half of each is new.
    ///
    /// # Errors
    /// When `tokens_max` is below 8 or `overlap_tokens` above half of it.
    pub fn validate(&self) -> Result<(), ChunkOptionsError> {
        let Self { tokens_max, overlap_tokens } = *self;
        if tokens_max < TOKENS_MAX_MIN {
            return Err(ChunkOptionsError::TokensMaxTooSmall { tokens_max });
        }
        if overlap_tokens > tokens_max / 2 {
            return Err(ChunkOptionsError::OverlapTooLarge { overlap_tokens, tokens_max });
        }
        Ok(())
    }
}

/// The chunks of a segment, as byte ranges of `text` in order.
///
/// `text` is a lead, which the first chunk may overlap, and from byte `body_start` on the body.
/// `tokens` are the byte ranges of the tokens of `text` in order, without special tokens. Empty,
/// overlapping or missing ranges and ranges that split chars are borne. `carry` is the state at
/// the start of the body.
///
/// Every char of the body that is not white space lies in a chunk. Chunks are not empty, have no
/// white space at their ends, and their starts and ends strictly increase. None touches more than
/// `tokens_max` tokens, unless a single char does, or is longer than `tokens_max` times
/// [`CHUNK_BYTES_PER_TOKEN_MAX`] bytes. An overlap starts at a sentence, a line or else a word; it
/// holds at most `overlap_tokens` tokens and that many times as many bytes. Options that fail
/// [`ChunkOptions::validate`] are bent until they pass in spirit: limit at least 1, overlap at most
/// half of it.
pub fn chunks(
    text: &str,
    body_start: usize,
    tokens: &[Range<usize>],
    syntax: Syntax,
    carry: Carry,
    options: ChunkOptions,
) -> Vec<Range<usize>> {
    let body_start = text.floor_char_boundary(body_start);
    let end = text.trim_end().len();
    let mut next = skip_space(text, body_start);
    let mut found = Vec::new();
    if next >= end {
        return found;
    }
    let spans = spans(text, tokens);
    let mut plan = Plan::new(text, &spans, options);
    plan.mark(&spans, body_start, Lines::new(syntax, carry));
    let mut cut = text[..body_start].trim_end().len();
    let mut start_min = 0;
    loop {
        let start = plan.overlap_start(start_min, cut, next);
        cut = plan.cut(start, next);
        found.push(start..cut);
        if cut >= end {
            return found;
        }
        start_min = start + 1;
        next = skip_space(text, cut);
    }
}

/// Where the first char at or after `at` lies that is not white space.
fn skip_space(text: &str, at: usize) -> usize {
    text.len() - text[at..].trim_start().len()
}

/// The tokens as ranges within `text` that are not empty, ascending by start.
fn spans(text: &str, tokens: &[Range<usize>]) -> Vec<(usize, usize)> {
    let last = text.len().saturating_sub(1);
    let mut spans: Vec<_> = tokens
        .iter()
        .map(|token| {
            // An empty token still costs its place in a chunk: it counts where the next byte does.
            let start = token.start.min(last);
            (start, token.end.min(text.len()).max(start + 1))
        })
        .collect();
    spans.sort_unstable();
    spans
}

/// A fenced block within the body.
struct Fenced {
    /// Where the text before it ends.
    gap: usize,
    start: usize,
    end: usize,
}

/// Where a text may be cut, and what its tokens allow.
struct Plan<'a> {
    text: &'a str,
    /// Where the last char ends that is not white space.
    end: usize,
    tokens_max: usize,
    overlap_tokens: usize,
    /// Starts of tokens, ascending. With `ends`, counts tokens however they overlap: those that
    /// touch a range are those that start before its end less those that end before its start.
    starts: Vec<usize>,
    /// Ends of tokens, ascending, each for itself: not aligned with `starts`.
    ends: Vec<usize>,
    /// Strength by the byte at which a chunk would end; `Never` behind white space.
    ending: Vec<Strength>,
    /// The same strength by the byte at which the next chunk would start.
    starting: Vec<Strength>,
    fenced: Vec<Fenced>,
    /// Grapheme clusters are looked for only when a cut needs them, which few texts do.
    graphemes_known: bool,
}

impl<'a> Plan<'a> {
    fn new(text: &'a str, spans: &[(usize, usize)], options: ChunkOptions) -> Self {
        let tokens_max = usize::try_from(options.tokens_max.max(1)).unwrap_or(usize::MAX);
        let overlap_tokens = usize::try_from(options.overlap_tokens).unwrap_or(usize::MAX);
        let mut ends: Vec<_> = spans.iter().map(|span| span.1).collect();
        ends.sort_unstable();
        Self {
            text,
            end: text.trim_end().len(),
            tokens_max,
            overlap_tokens: overlap_tokens.min(tokens_max / 2),
            starts: spans.iter().map(|span| span.0).collect(),
            ends,
            ending: vec![Strength::Never; text.len() + 1],
            starting: vec![Strength::Never; text.len() + 1],
            fenced: Vec::new(),
            graphemes_known: false,
        }
    }

    /// Finds the strength of every place between two chars that are not white space.
    fn mark(&mut self, spans: &[(usize, usize)], body_start: usize, at_body: Lines) {
        let text = self.text;
        let mut reader = Reader::new(text, body_start, at_body);
        let mut before: Option<(usize, char)> = None;
        let mut spans = spans.iter().peekable();
        // How far the tokens reach that start before the place.
        let mut reach = 0;
        for (start, char) in text.char_indices().filter(|(_, char)| !char.is_whitespace()) {
            let end = before.map_or(0, |(end, _)| end);
            while let Some(span) = spans.next_if(|span| span.0 < end) {
                reach = reach.max(span.1);
            }
            let previous = reader.line;
            let breaks = reader.read(end, start);
            let line = reader.line;
            let strength = match before {
                None => Strength::Word,
                Some(_) if reach > start && start > end => Strength::TokenSpace,
                Some(_) if reach > start => Strength::Grapheme,
                Some((_, last)) => {
                    let by_line = match breaks {
                        0 => within_line(line, start > end, last, char),
                        _ => line.strength_after(previous, breaks > 1),
                    };
                    // Few words end in a mark, so most need no closer look.
                    let may_end =
                        by_line <= Strength::Word && line.has_sentences() && !last.is_alphanumeric();
                    let joined = by_line == Strength::Joined;
                    if may_end && !joined && ends_sentence(text, end, start) {
                        Strength::Sentence
                    } else {
                        by_line
                    }
                }
            };
            if before.is_some() {
                self.ending[end] = strength;
            }
            self.starting[start] = strength;
            before = Some((start + char.len_utf8(), char));
        }
        self.ending[self.end] = Strength::Word;
        self.fenced = reader.finish(self.end);
    }

    /// Where a chunk from `start` ends at the latest: at a char boundary, perhaps in white space.
    fn limit(&self, start: usize) -> usize {
        let ended = self.ends.partition_point(|&end| end <= start);
        let by_tokens = self.starts.get(ended.saturating_add(self.tokens_max));
        let by_bytes = start.saturating_add(self.tokens_max.saturating_mul(CHUNK_BYTES_PER_TOKEN_MAX));
        self.text.floor_char_boundary(by_tokens.map_or(by_bytes, |&at| by_bytes.min(at)))
    }

    /// Where the char ends that starts at `next`.
    fn char_end(&self, next: usize) -> usize {
        self.text.ceil_char_boundary(next + 1)
    }

    /// Where the chunk starts whose first new char is at `next`, the last chunk having ended at
    /// `end`; not before `start_min`.
    fn overlap_start(&self, start_min: usize, end: usize, next: usize) -> usize {
        let started = self.starts.partition_point(|&start| start < end);
        let by_tokens = match started.saturating_sub(self.overlap_tokens) {
            0 => 0,
            outside => self.ends[outside - 1],
        };
        let bytes = self.overlap_tokens.saturating_mul(CHUNK_BYTES_PER_TOKEN_MAX);
        let from = by_tokens.max(end.saturating_sub(bytes)).max(start_min);
        let Some(reach) = self.starting.get(from..end) else {
            return next;
        };
        let sentence = |strength: &Strength| *strength >= Strength::Sentence || *strength == Strength::Joined;
        let offset = reach
            .iter()
            .position(sentence)
            .or_else(|| reach.iter().position(|&strength| strength >= Strength::HeadingWord));
        match offset {
            // Without room for a new char the overlap would stop all progress.
            Some(offset) if self.limit(from + offset) >= self.char_end(next) => from + offset,
            _ => next,
        }
    }

    /// Where the chunk from `start` ends, whose first new char is at `next`.
    fn cut(&mut self, start: usize, next: usize) -> usize {
        let first = self.char_end(next);
        let limit = self.limit(start);
        if limit >= self.end {
            return self.end;
        }
        if limit <= first {
            return first;
        }
        let half = self.half(start, next, limit).clamp(first, limit);
        let (mut strength, mut cut) = self.strongest(half, limit);
        if strength <= Strength::Punctuation && !self.graphemes_known {
            self.mark_graphemes();
            (strength, cut) = self.strongest(half, limit);
        }
        // Better a short chunk than a lost heading, a cut token or a cut grapheme cluster.
        let quarter = (next + (limit - next) / 4).clamp(first, half);
        let in_heading = matches!(strength, Strength::HeadingWord | Strength::Joined);
        for (from, least) in
            [(quarter, Strength::Word), (first, Strength::Token), (first, Strength::TokenChar)]
        {
            if (strength < least && (in_heading || least < Strength::Word))
                && let Some(offset) = self.ending[from..half].iter().rposition(|&s| s >= least)
            {
                return from + offset;
            }
        }
        if strength == Strength::Never {
            return self.strongest(first, half).1;
        }
        self.spare_fenced(quarter, cut)
    }

    /// Where half of the new part of the chunk from `start` to `limit` ends, in tokens where these
    /// bind and in bytes elsewhere. Were the overlap counted, each chunk could add but a word.
    fn half(&self, start: usize, next: usize, limit: usize) -> usize {
        let ended = self.ends.partition_point(|&end| end <= start);
        let last = ended.saturating_add(self.tokens_max);
        let by_bytes = self.text.floor_char_boundary(next + (limit - next) / 2);
        match self.starts.get(last) {
            Some(&at) if self.text.floor_char_boundary(at) == limit => {
                let first = self.starts.partition_point(|&start| start < next);
                let at = self.text.floor_char_boundary(self.starts[first.midpoint(last)]);
                // A cut at white space lies where the text before it ends.
                next + self.text[next..at.max(next)].trim_end().len()
            }
            _ => by_bytes,
        }
    }

    /// The last of the strongest places from `from` to `to`, both included.
    fn strongest(&self, from: usize, to: usize) -> (Strength, usize) {
        let mut best = (Strength::Never, to);
        for (offset, &strength) in self.ending[from..=to].iter().enumerate() {
            if strength >= best.0 {
                best = (strength, from + offset);
            }
        }
        best
    }

    /// Moves a cut out of a fenced block that fits in a chunk to the last of the strongest places
    /// before it, unless only weak ones lie between `quarter` and the block.
    fn spare_fenced(&self, quarter: usize, cut: usize) -> usize {
        let after = self.fenced.partition_point(|block| block.start < cut);
        let Some(block) = after.checked_sub(1).map(|at| &self.fenced[at]) else {
            return cut;
        };
        if cut >= block.end || block.gap < quarter || self.limit(block.start) < block.end {
            return cut;
        }
        match self.strongest(quarter, block.gap) {
            (strength, before) if strength >= Strength::Paragraph => before,
            _ => cut,
        }
    }

    /// Weakens the places within grapheme clusters.
    fn mark_graphemes(&mut self) {
        self.graphemes_known = true;
        for (at, cluster) in self.text.grapheme_indices(true) {
            for strength in &mut self.ending[at + 1..at + cluster.len()] {
                *strength = match *strength {
                    Strength::Grapheme => Strength::Char,
                    Strength::Token | Strength::Punctuation => Strength::TokenChar,
                    kept => kept,
                };
            }
        }
    }
}

/// How well a line can be parted within, `spaced` telling of white space between the two chars.
fn within_line(line: Line, spaced: bool, last: char, char: char) -> Strength {
    let unspaced = is_unspaced(char) || (is_unspaced(last) && char.is_ascii_alphanumeric());
    match line {
        Line::Heading if spaced || unspaced => Strength::HeadingWord,
        _ if spaced || unspaced => Strength::Word,
        _ if is_punctuation(last) || is_punctuation(char) => Strength::Punctuation,
        _ => Strength::Token,
    }
}

fn is_punctuation(char: char) -> bool {
    char.is_ascii_punctuation()
        || matches!(char, '\u{2010}'..='\u{2027}' | '\u{3001}'..='\u{3011}' | '\u{ff01}'..='\u{ff0f}')
}

/// Reads the lines of a text as the places between its chars are visited.
struct Reader<'a> {
    text: &'a str,
    body_start: usize,
    /// What the lines of the body are judged by; those of the lead only guide an overlap.
    at_body: Lines,
    lines: Lines,
    line: Line,
    in_body: bool,
    /// The gap before and the start of a fenced block that is still open.
    opened: Option<(usize, usize)>,
    fenced: Vec<Fenced>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, body_start: usize, at_body: Lines) -> Self {
        let (lines, line) = (at_body, Line::Prose);
        Self { text, body_start, at_body, lines, line, in_body: false, opened: None, fenced: Vec::new() }
    }

    /// Passes from the char that ends at `end` to the next that is not white space, at `start`;
    /// returns the number of line ends between them.
    fn read(&mut self, end: usize, start: usize) -> usize {
        let breaks = self.text[end..start].bytes().filter(|&byte| byte == b'\n').count();
        let enters = !self.in_body && start >= self.body_start;
        if enters {
            (self.in_body, self.lines, self.opened) = (true, self.at_body, None);
            if self.text[self.body_start..start].contains('\n') {
                self.lines.skip_blank();
            }
        }
        if breaks == 0 && !enters && end > 0 {
            return breaks;
        }
        let from = self.text[end..start].rfind('\n').map_or(end, |at| end + at + 1);
        let line = self.text[from..].lines().next().unwrap_or_default();
        self.line = self.lines.classify(line);
        match self.line {
            Line::FenceOpen => self.opened = Some((end, start)),
            Line::FenceClose => self.close(from + line.trim_end().len()),
            _ => {}
        }
        breaks
    }

    fn close(&mut self, end: usize) {
        self.fenced.extend(self.opened.take().map(|(gap, start)| Fenced { gap, start, end }));
    }

    fn finish(mut self, end: usize) -> Vec<Fenced> {
        self.close(end);
        self.fenced
    }
}

#[cfg(test)]
mod tests;
