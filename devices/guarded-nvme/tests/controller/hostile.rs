// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that does anything.

use guarded_nvme_testing::Random;
use guarded_nvme_testing::hostile::{Seen, run};
use proptest::collection::vec;
use proptest::prelude::*;

/// Sequences that are the same each time.
#[test]
fn no_guest_makes_the_device_go_where_it_must_not() {
    let mut seen = Seen::default();
    for seed in 0..96 {
        let mut random = Random::new(seed);
        let bytes: Vec<u8> = (0..4000).map(|_| random.word().to_le_bytes()[5]).collect();
        seen.add(&run(&bytes));
    }
    assert!(seen.is_all(), "{seen:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_other_guest_does_either(bytes in vec(any::<u8>(), 100..5000)) {
        let _ = run(&bytes);
    }
}
