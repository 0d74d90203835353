//! Memory and interrupts to try an engine with, a plain model of it, and a driver of random
//! operations that holds one against the other. For tests and fuzzing.

#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths and offsets are below 2^20, and register values are cut on purpose"
)]

mod model;
pub mod operations;
mod outside;

pub use outside::{Event, Events, PAGE, Ram, TestMemory};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::operations;

    #[test]
    fn the_fuzzers_sequences_agree_with_the_model() {
        let mut seen = operations::Seen::default();
        for bytes in crate::corpus("edu").unwrap() {
            seen.add(&operations::run(&bytes));
        }
        assert!(seen.is_all(), "the sequences miss something: {seen:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2000,
            max_shrink_iters: 2000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_sequence_of_operations_departs_from_the_model(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            operations::run(&bytes);
        }
    }
}
