//! The result of one segment: where its chunks stand and what their vectors are.

use serde::{Deserialize, Serialize};

use super::PeerId;

/// How far from 1 the length of an L2-normalised f32 vector may lie.
pub const UNIT_NORM_TOLERANCE: f32 = 1e-3;

/// One chunk of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkSpan {
    /// First byte, counted from the start of the segment's lead (see `inference::segment`).
    pub start: u32,
    /// First byte behind the chunk, counted likewise.
    pub end: u32,
    /// Tokens that the model saw, special tokens included.
    pub tokens: u16,
}

/// What a segment came to. Version 1, frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentResult {
    /// Who computed it.
    pub computed_by: PeerId,
    /// Whether its owner computed or checked it, so that it may be handed on without another look.
    pub verified: bool,
    /// Chunks in the order of the text.
    pub chunks: Vec<ChunkSpan>,
    /// `[chunks, dimension]` f32, L2-normalised, row by row.
    pub vectors: Vec<f32>,
}

/// Why a result can not be right, whoever computed it.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ResultError {
    /// As many vectors as chunks.
    #[error("{floats} floats are no {chunks} vectors of dimension {dimension}")]
    Shape {
        /// Number of floats.
        floats: usize,
        /// Number of chunks.
        chunks: usize,
        /// Dimension of the model.
        dimension: usize,
    },
    /// Chunks stand in order, hold at least one byte and end in the text.
    #[error("chunk {chunk} stands at bytes {start}..{end} of a text of {text_bytes}")]
    Span {
        /// Index of the chunk.
        chunk: usize,
        /// Its start.
        start: u32,
        /// Its end.
        end: u32,
        /// Length of lead and body.
        text_bytes: usize,
    },
    /// A chunk begins or ends within a char.
    #[error("chunk {chunk} splits a character")]
    Char {
        /// Index of the chunk.
        chunk: usize,
    },
    /// Text that lies in no chunk.
    #[error("bytes {start}..{end} of the text lie in no chunk")]
    Gap {
        /// First byte left out.
        start: usize,
        /// First byte behind it.
        end: usize,
    },
    /// NaN or infinity, or a vector that is not of length 1.
    #[error("the vector of chunk {chunk} has length {norm}, not 1")]
    Norm {
        /// Index of the chunk.
        chunk: usize,
        /// Length found.
        norm: f32,
    },
}

impl SegmentResult {
    /// Vectors, one a chunk.
    pub fn rows(&self, dimension: usize) -> impl Iterator<Item = (&ChunkSpan, &[f32])> {
        self.chunks.iter().zip(self.vectors.chunks_exact(dimension))
    }

    /// BLAKE3 of chunks and vectors, whoever computed them: what a receipt is about.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("edge 2026-11 hash of a result, version 1");
        hasher.update(&(self.chunks.len() as u64).to_le_bytes());
        for ChunkSpan { start, end, tokens } in &self.chunks {
            hasher.update(&start.to_le_bytes()).update(&end.to_le_bytes()).update(&tokens.to_le_bytes());
        }
        for float in &self.vectors {
            hasher.update(&float.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// The checks that cost nothing (DESIGN 6): shape, order, finite unit vectors.
    ///
    /// # Errors
    /// The first promise that does not hold.
    pub fn check(&self, text_bytes: usize, dimension: usize) -> Result<(), ResultError> {
        if dimension == 0 || self.vectors.len() != self.chunks.len() * dimension {
            return Err(ResultError::Shape {
                floats: self.vectors.len(),
                chunks: self.chunks.len(),
                dimension,
            });
        }
        let mut before = (None, 0);
        for (chunk, (span, vector)) in self.rows(dimension).enumerate() {
            let ChunkSpan { start, end, .. } = *span;
            if start >= end || before.0 >= Some(start) || before.1 >= end || end as usize > text_bytes {
                return Err(ResultError::Span { chunk, start, end, text_bytes });
            }
            before = (Some(start), end);
            let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            if norm.is_nan() || (norm - 1.0).abs() > UNIT_NORM_TOLERANCE {
                return Err(ResultError::Norm { chunk, norm });
            }
        }
        Ok(())
    }

    /// Whether the chunks, which have passed [`SegmentResult::check`], cover all of the body but for white space, and split
    /// no char.
    ///
    /// # Errors
    /// The first promise that does not hold.
    pub fn check_text(&self, text: &str, body_start: usize) -> Result<(), ResultError> {
        let mut covered = body_start;
        let rest = ChunkSpan { start: text.len() as u32, end: text.len() as u32, tokens: 0 };
        for (chunk, span) in self.chunks.iter().chain([&rest]).enumerate() {
            let (start, end) = (span.start as usize, span.end as usize);
            if !text.is_char_boundary(start) || !text.is_char_boundary(end) {
                return Err(ResultError::Char { chunk });
            }
            let gap = text.get(covered..start).unwrap_or_default();
            if !gap.trim().is_empty() {
                return Err(ResultError::Gap { start: covered, end: start });
            }
            covered = covered.max(end);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(spans: &[(u32, u32)], vectors: &[f32]) -> SegmentResult {
        let chunks = spans.iter().map(|&(start, end)| ChunkSpan { start, end, tokens: 3 }).collect();
        SegmentResult {
            computed_by: PeerId::from_bytes([1; 32]),
            verified: true,
            chunks,
            vectors: vectors.to_vec(),
        }
    }

    /// These bytes lie on people's disks: a change here is a new version with an upgrade.
    #[test]
    fn bytes_of_version_1() {
        let record = crate::wire::seal("results", 1, &[7; 32], &result(&[(3, 300)], &[1.0, 0.0]));
        assert_eq!(
            data_encoding::HEXLOWER.encode(&record),
            "01910d07684b55b5a00101010101010101010101010101010101010101010101010101010101010101010103ac0203020000803f00000000"
        );
    }

    #[test]
    fn right_results_pass() {
        assert_eq!(result(&[], &[]).check(0, 2), Ok(()));
        assert_eq!(result(&[(0, 4), (2, 9)], &[1.0, 0.0, 0.6, 0.8]).check(9, 2), Ok(()));
    }

    #[test]
    fn chunks_must_cover_the_body() {
        let vectors = [1.0, 0.0, 0.6, 0.8];
        let check = |spans: &[(u32, u32)], text: &str, body| result(spans, &vectors).check_text(text, body);
        assert_eq!(check(&[(0, 3), (5, 8)], "abc  def \n", 0), Ok(()));
        assert_eq!(check(&[(4, 7)], "lead def", 5), Err(ResultError::Gap { start: 7, end: 8 }));
        assert_eq!(
            check(&[(2, 8)], "lead def", 5),
            Ok(()),
            "the lead need not be covered, and may be repeated"
        );
        assert_eq!(check(&[(0, 3)], "abc  def", 0), Err(ResultError::Gap { start: 3, end: 8 }));
        assert_eq!(check(&[], "  \n", 0), Ok(()));
        assert_eq!(check(&[(0, 1)], "é", 0), Err(ResultError::Char { chunk: 0 }));
    }

    #[test]
    fn wrong_results_are_told_apart() {
        let floats = [1.0, 0.0, 0.6, 0.8];
        assert!(matches!(result(&[(0, 4)], &floats).check(9, 2), Err(ResultError::Shape { .. })));
        assert!(matches!(result(&[], &[]).check(9, 0), Err(ResultError::Shape { .. })));
        for spans in [[(0, 4), (0, 9)], [(0, 4), (2, 4)], [(4, 4), (5, 9)], [(0, 4), (4, 10)]] {
            let found = result(&spans, &floats).check(9, 2);
            assert!(matches!(found, Err(ResultError::Span { .. })), "{spans:?} {found:?}");
        }
        for wrong in [f32::NAN, f32::INFINITY, 0.0, 1.1] {
            let found = result(&[(0, 4)], &[wrong, 0.0]).check(9, 2);
            assert!(matches!(found, Err(ResultError::Norm { chunk: 0, .. })), "{wrong} {found:?}");
        }
    }
}
