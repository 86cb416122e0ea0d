//! The seam between jobs and whatever computes vectors.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Asks compute to stop. Clones share one flag; it never goes back.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on [`Stop::is_asked`] is true.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag itself, for a signal handler to set.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// Why there are no vectors.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// [`Stop`] was asked for; nothing is wrong.
    #[error("stopped")]
    Stopped,
    /// The model did not run to its end.
    #[error("the model failed")]
    Run(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The model ran and gave something else than its folder says.
    #[error("the model gave {found}, not {expected}")]
    Shape {
        /// Shape and type found.
        found: String,
        /// Shape and type expected.
        expected: String,
    },
}

/// One thread's way of computing vectors.
///
/// The batch is ragged on purpose: whether rows of equal length are grouped, padded or laid end to end is
/// the implementation's own affair. [`crate::inference::TractModel`] runs any ONNX graph in groups of equal
/// length; [`crate::inference::BertModel`] lays the sequences of a BERT encoder end to end.
pub trait Embedder: Send {
    /// `[batch][tokens] token ids, special tokens included -> [batch, dimension] f32, L2-normalised`, rows in
    /// the order of the batch. A row depends on nothing but its own tokens.
    ///
    /// # Errors
    /// [`EmbedError::Stopped`] soon after `stop` is asked; otherwise the whole batch has failed and the
    /// embedder can be used again.
    fn embed(&mut self, batch: &[&[u32]], stop: &Stop) -> Result<Vec<f32>, EmbedError>;
}
