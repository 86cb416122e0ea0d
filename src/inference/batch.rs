//! Packs sequences of tokens into batches of bounded cost.

use std::ops::Range;

/// Tokens in one batch. Attention scores of 4 sequences of 256 tokens take 12 MB; more rows gain nothing
/// on the cores we run on, and cost memory (measured: `edge bench`).
pub const BATCH_TOKENS_MAX: usize = 1024;

/// Cuts `lengths`, sorted, into ranges of at most `tokens_max` tokens; a longer sequence is a batch alone.
/// Sequences of equal length stay together as far as the bound lets them.
pub fn batches(lengths: &[usize], tokens_max: usize) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (at, &length) in lengths.iter().enumerate() {
        if at > start && tokens + length > tokens_max {
            out.push(start..at);
            (start, tokens) = (at, 0);
        }
        tokens += length;
    }
    if start < lengths.len() {
        out.push(start..lengths.len());
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packs_to_the_bound() {
        assert_eq!(batches(&[9, 5, 5, 4, 1, 1], 10), [0..1, 1..3, 3..6]);
        assert_eq!(batches(&[30, 3], 10), [0..1, 1..2]);
        assert!(batches(&[], 10).is_empty());
    }

    proptest! {
        #[test]
        fn covers_all_in_order_within_the_bound(
            lengths in proptest::collection::vec(1usize..400, 0..200),
            tokens_max in 1usize..1000,
        ) {
            let mut next = 0;
            for range in batches(&lengths, tokens_max) {
                prop_assert_eq!(range.start, next);
                prop_assert!(!range.is_empty());
                next = range.end;
                let tokens: usize = lengths[range.clone()].iter().sum();
                prop_assert!(tokens <= tokens_max || range.len() == 1);
            }
            prop_assert_eq!(next, lengths.len());
        }
    }
}
