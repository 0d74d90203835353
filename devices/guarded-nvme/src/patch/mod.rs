// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest sees of data that the device gave: no more than what the monitor serves, so that drivers do not try what
//! would be refused.
//!
//! As for commands, what is not listed is left out: bytes that no rule keeps are zeros.

mod controller;
mod logs;
mod namespace;

use std::ops::Range;

use crate::check::{Filter, io, logs as log_rules};
use crate::check::{admin, features};
use crate::limits::Limits;
use crate::spec::PAGE_BYTES;

pub use controller::controller;
pub use logs::log;

/// First byte of Host Behavior Support: ACRE, which alone is passed.
const HOST_BEHAVIOR: [Range<usize>; 1] = [0..1];

/// Applies `filter` to the page `data` of a command's data, which begins at byte `start` of it.
pub fn apply(filter: Filter, limits: &Limits, start: u64, data: &mut [u8; PAGE_BYTES]) {
    match filter {
        Filter::Whole | Filter::Descriptors => {}
        Filter::Controller => controller(limits, data),
        Filter::Namespace => keep(data, &namespace::NAMESPACE),
        Filter::SpecificNamespace => keep(data, &namespace::SPECIFIC_NAMESPACE),
        Filter::SpecificController => keep(data, &namespace::SPECIFIC_CONTROLLER),
        Filter::IndependentNamespace => keep(data, &namespace::INDEPENDENT_NAMESPACE),
        Filter::Log(part) => log(part, limits, start, data),
        Filter::HostBehavior => keep(data, &HOST_BEHAVIOR),
    }
}

/// Clears all but these ranges, which are in order.
fn keep(data: &mut [u8], ranges: &[Range<usize>]) {
    let mut end = 0;
    for range in ranges {
        clear(data, end..range.start);
        end = range.end;
    }
    clear(data, end..data.len());
}

fn clear(data: &mut [u8], range: Range<usize>) {
    if let Some(part) = data.get_mut(range) {
        part.fill(0);
    }
}

/// Whether the commands log (05h) keeps its dword `number`: of admin commands, then of I/O commands.
fn is_command(number: u64, limits: &Limits) -> bool {
    match (number / 256, u8::try_from(number % 256)) {
        (0, Ok(opcode)) => admin::is_offered(opcode, limits),
        (1, Ok(opcode)) => io::is_offered(opcode, limits.optional),
        _ => false,
    }
}

/// Whether the features log (12h) keeps its dword `number`.
fn is_feature(number: u64) -> bool {
    u8::try_from(number).is_ok_and(features::is_offered)
}

/// Whether the log of log pages (00h) keeps its dword `number`.
fn is_page(number: u64) -> bool {
    u8::try_from(number).is_ok_and(log_rules::is_offered)
}
