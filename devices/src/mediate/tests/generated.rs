//! Profiles made up, and guests.

use proptest::prelude::*;

use crate::mediate::testing::generated::{self, Seen};

use super::numbers::Numbers;

#[test]
fn no_accepted_profile_lets_a_guest_out() {
    let mut numbers = Numbers(5);
    let mut seen = Seen::default();
    for _ in 0..6000 {
        let bytes: Vec<u8> = (0..80).flat_map(|_| numbers.next().to_le_bytes()).collect();
        seen.add(&generated::run(&bytes));
    }
    println!("{seen:?}");
    assert!(seen.accepted >= 2000 && seen.rejected >= 1000, "{seen:?}");
    assert!(seen.started >= 5000 && seen.refused >= 5000, "{seen:?}");
    assert!(seen.busy >= 1000 && seen.ignored >= 5000, "{seen:?}");
}
