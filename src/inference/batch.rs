//! Packs sequences of tokens into batches of bounded cost.

/// Tokens in one batch. Attention scores of 4 sequences of 256 tokens take 12 MB; more rows gain nothing
/// on the cores we run on, and cost memory (measured: `edge bench`).
pub const BATCH_TOKENS_MAX: usize = 1024;

/// How many of `lengths`, from the first on, are a batch of at most `tokens_max` tokens; a longer sequence is a batch
/// alone. Where they are sorted, sequences of equal length stay together as far as the bound lets them.
pub fn batch(lengths: &[usize], tokens_max: usize) -> usize {
    let mut tokens = 0;
    let fits = |(at, length): &(usize, &usize)| {
        tokens += **length;
        *at == 0 || tokens <= tokens_max
    };
    lengths.iter().enumerate().take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packs_to_the_bound() {
        assert_eq!(batch(&[9, 5, 5, 4, 1, 1], 10), 1);
        assert_eq!(batch(&[5, 5, 4, 1, 1], 10), 2);
        assert_eq!(batch(&[4, 1, 1], 10), 3);
        assert_eq!(batch(&[30, 3], 10), 1, "what is too long is a batch all the same");
        assert_eq!(batch(&[], 10), 0);
    }

    proptest! {
        #[test]
        fn covers_all_in_order_within_the_bound(
            lengths in proptest::collection::vec(1usize..400, 0..200),
            tokens_max in 1usize..1000,
        ) {
            let mut next = 0;
            while next < lengths.len() {
                let count = batch(&lengths[next..], tokens_max);
                prop_assert!(count > 0);
                let tokens: usize = lengths[next..next + count].iter().sum();
                prop_assert!(tokens <= tokens_max || count == 1);
                next += count;
                let is_full = lengths.get(next).is_none_or(|more| tokens + more > tokens_max);
                prop_assert!(is_full, "the next one had fitted");
            }
            prop_assert_eq!(next, lengths.len());
        }
    }
}
