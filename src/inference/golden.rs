//! Runs a model on the golden texts of its folder: the ids must be equal, the vectors close.
//!
//! The golden vectors come from an f64 reference, so they bound what quantised weights and f32 arithmetic
//! may cost. Pinned ids tell a wrong tokenizer from a wrong graph.

use std::sync::Arc;

use super::{Engine, ModelError, ModelFolder, Stop};

/// Cosine that no golden text may fall below.
pub(super) const COSINE_LEAST: f64 = 0.999;
/// Cosine that their mean may not fall below.
const COSINE_MEAN: f64 = 0.9999;

/// How close a model came to its golden vectors.
#[derive(Clone, Copy, Debug)]
pub struct GoldenReport {
    /// Texts checked.
    pub texts: usize,
    /// The least cosine.
    pub least: f64,
    /// The mean cosine.
    pub mean: f64,
}

/// Checks `engine`, loaded from `folder`.
///
/// # Errors
/// [`ModelError::Golden`] with the first promise that is broken.
pub fn check(folder: &ModelFolder, engine: &Arc<Engine>) -> Result<GoldenReport, ModelError> {
    let wrong = |reason: String| ModelError::Golden { path: folder.path().to_owned(), reason };
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| ModelError::GoldenRun {
        path: folder.path().to_owned(),
        source,
    };
    let mut embedder = engine.embedder().map_err(|error| failed(error.into()))?;
    let mut report = GoldenReport { texts: 0, least: 1.0, mean: 0.0 };
    for (text, ids, expected) in folder.manifest().golden() {
        let name: String = text.chars().take(24).collect();
        let found = engine.tokens().ids(text).map_err(|error| failed(error.into()))?;
        if let Some(at) = (0..found.len().max(ids.len())).find(|&at| found.get(at) != ids.get(at)) {
            let token = |ids: &[u32]| ids.get(at).map_or("none".to_owned(), u32::to_string);
            let (found, expected) = (token(&found), token(ids));
            return Err(wrong(format!("token {at} of its golden text {name:?} is {found}, not {expected}")));
        }
        let vector = embedder.embed(&[&found], &Stop::default()).map_err(|error| failed(error.into()))?;
        let cosine = cosine(&vector, &expected);
        if cosine.is_nan() || cosine < COSINE_LEAST {
            return Err(wrong(format!(
                "the vector of its golden text {name:?} has cosine {cosine:.6} with the reference; {COSINE_LEAST} is the least"
            )));
        }
        report.texts += 1;
        report.least = report.least.min(cosine);
        report.mean += cosine;
    }
    report.mean /= report.texts.max(1) as f64;
    if report.mean < COSINE_MEAN {
        return Err(wrong(format!(
            "its golden vectors have mean cosine {:.6}; {COSINE_MEAN} is the least",
            report.mean
        )));
    }
    Ok(report)
}

/// Cosine of two vectors, in f64.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
