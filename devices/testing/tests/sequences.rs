// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! All drivers: the inputs that the fuzzers kept, and random ones.

use devices_testing::{corpus, dma_window, edu, mediate, operations};
use proptest::collection::vec;
use proptest::prelude::*;

#[test]
fn the_fuzzers_sequences_break_no_rule() {
    let inputs = corpus("operations").unwrap();
    for bytes in &inputs {
        operations::run(bytes);
    }
    let count = inputs.len();
    assert!(count >= 64, "{count} sequences");
}

#[test]
fn the_fuzzers_sequences_agree_with_the_model_of_edu() {
    let mut seen = edu::operations::Seen::default();
    for bytes in corpus("edu").unwrap() {
        seen.add(&edu::operations::run(&bytes));
    }
    assert!(seen.is_all(), "the sequences miss something: {seen:?}");
}

#[test]
fn the_fuzzers_sequences_agree_with_the_model_of_the_window() {
    let mut seen = dma_window::operations::Seen::default();
    for bytes in corpus("dma_window").unwrap() {
        seen.add(&dma_window::operations::run(&bytes));
    }
    assert!(seen.is_all(), "the sequences miss something: {seen:?}");
}

#[test]
fn the_fuzzers_sequences_agree_with_the_model_of_a_mediated_engine() {
    let mut seen = mediate::operations::Seen::default();
    for bytes in corpus("mediate").unwrap() {
        seen.add(&mediate::operations::run(&bytes));
    }
    assert!(seen.is_all(), "the sequences miss something: {seen:?}");
}

#[test]
fn the_fuzzers_made_up_profiles_let_no_guest_out() {
    let mut seen = mediate::generated::Seen::default();
    for bytes in corpus("generated").unwrap() {
        seen.add(&mediate::generated::run(&bytes));
    }
    assert!(seen.accepted >= 20 && seen.rejected >= 5, "{seen:?}");
    assert!(seen.started >= 100 && seen.busy >= 50, "{seen:?}");
}

#[test]
fn the_fuzzers_profiles_do_no_harm() {
    let mut usable = 0;
    for bytes in corpus("profile").unwrap() {
        usable += usize::from(mediate::profiles::run(&bytes));
    }
    assert!(usable >= 8, "{usable} usable profiles");
}

fn random(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        max_shrink_iters: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(random(2000))]

    #[test]
    fn no_sequence_of_operations_breaks_a_rule(bytes in vec(any::<u8>(), 0..800)) {
        operations::run(&bytes);
    }

    #[test]
    fn no_sequence_departs_from_the_model_of_edu(bytes in vec(any::<u8>(), 0..600)) {
        edu::operations::run(&bytes);
    }
}

proptest! {
    #![proptest_config(random(300))]

    #[test]
    fn no_sequence_departs_from_the_model_of_the_window(bytes in vec(any::<u8>(), 0..600)) {
        dma_window::operations::run(&bytes);
    }

    #[test]
    fn no_made_up_device_and_no_guest_get_out(bytes in vec(any::<u8>(), 60..900)) {
        mediate::generated::run(&bytes);
    }
}

proptest! {
    #![proptest_config(random(200))]

    #[test]
    fn no_sequence_departs_from_the_model_of_a_mediated_engine(bytes in vec(any::<u8>(), 0..600)) {
        mediate::operations::run(&bytes);
    }
}
