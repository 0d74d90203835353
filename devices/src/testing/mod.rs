//! A simulated device in the place of the host's, and a driver of random operations. For tests
//! and fuzzing.

mod calls;
mod device;
mod host;
pub(crate) mod input;
mod interrupts;
pub mod operations;
mod rules;

pub use device::{DeviceImage, ImageError};
pub use host::{Call, SimulatedHost, Witness};

/// The inputs kept from the fuzz target `name`.
#[cfg(test)]
pub(crate) fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");
    let entries = std::fs::read_dir(std::path::Path::new(folder).join(name)).unwrap();
    entries
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{corpus, operations};

    #[test]
    fn the_fuzzers_sequences_break_no_rule() {
        let inputs = corpus("operations");
        for bytes in &inputs {
            operations::run(bytes);
        }
        let count = inputs.len();
        assert!(count >= 64, "{count} sequences");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2000,
            max_shrink_iters: 2000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_sequence_of_operations_breaks_a_rule(bytes in proptest::collection::vec(any::<u8>(), 0..800)) {
            operations::run(&bytes);
        }
    }
}
