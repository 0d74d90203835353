// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Profiles made up, and guests.

use devices_testing::mediate::generated::{self, Seen};

use super::numbers::Numbers;

#[test]
fn no_accepted_profile_lets_a_guest_out() {
    let mut numbers = Numbers(5);
    let mut seen = Seen::default();
    for _ in 0..3000 {
        let bytes: Vec<u8> = (0..80).flat_map(|_| numbers.next().to_le_bytes()).collect();
        seen.add(&generated::run(&bytes));
    }
    assert!(seen.accepted >= 900 && seen.rejected >= 900, "{seen:?}");
    assert!(seen.started >= 2000 && seen.refused >= 5000, "{seen:?}");
    assert!(seen.busy >= 900 && seen.ignored >= 5000, "{seen:?}");
}
