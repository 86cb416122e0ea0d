//! The tokenizer of a model: byte offsets for the chunker, ids for the embedder.

use std::ops::Range;

use tokenizers::Tokenizer;

/// Why text has no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// `tokenizer.json` does not load.
    #[error("the tokenizer does not load")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The tokenizer refused a text.
    #[error("the tokenizer failed")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A tokenizer that neither truncates nor pads.
pub struct Tokens {
    tokenizer: Tokenizer,
    specials: usize,
}

impl Tokens {
    /// Loads the bytes of a `tokenizer.json`. What it says of truncation and padding is switched off:
    /// all-MiniLM's published file cuts at 128 tokens, half of what the model takes.
    ///
    /// # Errors
    /// [`TokenError::Load`].
    pub fn from_bytes(json: &[u8]) -> Result<Self, TokenError> {
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(TokenError::Load)?;
        tokenizer.with_truncation(None).map_err(TokenError::Load)?;
        tokenizer.with_padding(None);
        let specials = tokenizer.encode_fast("", true).map_err(TokenError::Load)?.len();
        Ok(Self { tokenizer, specials })
    }

    /// Special tokens that stand around every text.
    pub fn specials(&self) -> usize {
        self.specials
    }

    /// Byte ranges of the tokens of `text`, special ones not included.
    ///
    /// # Errors
    /// [`TokenError::Encode`].
    pub fn offsets(&self, text: &str) -> Result<Vec<Range<usize>>, TokenError> {
        let encoding = self.tokenizer.encode(text, false).map_err(TokenError::Encode)?;
        Ok(encoding.get_offsets().iter().map(|&(start, end)| start..end).collect())
    }

    /// Token ids of `text`, special ones included: what the model reads.
    ///
    /// # Errors
    /// [`TokenError::Encode`].
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, TokenError> {
        Ok(self.tokenizer.encode_fast(text, true).map_err(TokenError::Encode)?.get_ids().to_vec())
    }
}
