// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The core on any command.

use guarded_nvme_testing::core::{Seen, run};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[test]
fn any_command_is_refused_or_rebuilt_with_pages_of_the_guest() {
    let mut runner = TestRunner::new(Config::with_cases(256));
    let seen = std::cell::RefCell::new(Seen::default());
    let bytes = vec(any::<u8>(), 64..600);
    runner
        .run(&bytes, |bytes| {
            seen.borrow_mut().add(&run(&bytes));
            Ok(())
        })
        .unwrap();
    assert!(seen.borrow().is_all(), "{seen:?}");
}
