//! Runs BERT encoders in the form of `models/export.py` straight on tract-linalg's kernels.
//!
//! Deliberately absent: any other graph. Those are [`super::TractModel`]'s; this path is the same arithmetic at
//! less than half the cost, because nothing is padded, packed or copied between the matrix products.

use std::{fmt, sync::Arc};

use super::{EmbedError, Embedder, Stop};

mod encoder;
mod graph;
mod kernel;
mod lanes;
mod level;
mod tiles;
mod weights;

use encoder::Encoder;
use graph::Parts;
use kernel::Level;
use weights::Weights;

/// Rows of a bin. Sequences are laid end to end up to this; a longer one is a bin alone. Scratch memory grows
/// with it, and the cost of a token was least here (DESIGN 12).
const BIN_ROWS: usize = 256;

/// A loaded encoder, shared by all threads.
pub struct BertModel {
    weights: Arc<Weights>,
}

impl fmt::Debug for BertModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weights = &self.weights;
        f.debug_struct("BertModel").field("sizes", &weights.sizes).field("kernel", &self.kernel()).finish()
    }
}

impl BertModel {
    /// Reads `model.onnx`, whose output must be `[batch, dimension]`.
    ///
    /// `None` where the graph is not exactly of our export's form, is damaged, or where this machine has no
    /// kernel that fits: such a graph is tract's. Nothing is guessed.
    pub fn from_onnx(bytes: &[u8], dimension: usize) -> Option<Self> {
        Self::at_level(bytes, dimension, Level::detect())
    }

    fn at_level(bytes: &[u8], dimension: usize, level: Level) -> Option<Self> {
        let weights = Weights::pack(Parts::read(bytes, dimension)?, level)?;
        Some(Self { weights: Arc::new(weights) })
    }

    /// The matrix kernel that this machine uses, for logs.
    pub fn kernel(&self) -> &str {
        self.weights.kernel.name()
    }

    /// One thread's scratch memory over the shared weights.
    pub fn embedder(self: &Arc<Self>) -> Box<dyn Embedder> {
        Box::new(BertEmbedder {
            encoder: Encoder::new(Arc::clone(&self.weights)),
            dimension: self.weights.sizes.hidden,
        })
    }
}

struct BertEmbedder {
    encoder: Encoder,
    dimension: usize,
}

impl Embedder for BertEmbedder {
    fn embed(&mut self, batch: &[&[u32]], stop: &Stop) -> Result<Vec<f32>, EmbedError> {
        let mut out = vec![0.0; batch.len() * self.dimension];
        let mut start = 0;
        while start < batch.len() {
            let mut rows = batch[start].len();
            let more = batch[start + 1..].iter().take_while(|sequence| {
                rows += sequence.len();
                rows <= BIN_ROWS
            });
            let end = start + 1 + more.count();
            let vectors = &mut out[start * self.dimension..end * self.dimension];
            self.encoder.run(&batch[start..end], stop, vectors)?;
            start = end;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
