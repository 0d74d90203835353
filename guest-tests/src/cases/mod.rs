//! The tests on the real path.

mod check;
mod nvme;
mod script;

use std::time::Duration;

use crate::runner::Case;

/// All cases; long ones first, so that two at once end together.
pub const ALL: &[Case] = &[Case {
    name: "nvme",
    budget: Duration::from_secs(60),
    long: false,
    run: nvme::stock_kernel,
}];
