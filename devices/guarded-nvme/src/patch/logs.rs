// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest sees of log pages (Base 5.1.12).

use super::{is_command, is_feature, is_page};
use crate::bits::{join16, low16, put32, word32};
use crate::check::admin::LogPart;
use crate::limits::Limits;
use crate::spec::PAGE_BYTES;
use crate::spec::admin::lid;

/// Dwords of an entry of the error log.
const ERROR_DWORDS: u64 = 16;
/// A command identifier that names no command.
const NO_COMMAND: u16 = u16::MAX;

/// Changes `data`, which begins at byte `start` of a command's part of a log page. What is past a page's defined end is
/// left out, as a device may return there what it likes.
pub fn log(part: LogPart, limits: &Limits, start: u64, data: &mut [u8; PAGE_BYTES]) {
    for at in (0..PAGE_BYTES).step_by(4) {
        let first = part.offset.saturating_add(start) / 4;
        let number = first.saturating_add(at as u64 / 4);
        let value = word32(data, at);
        put32(data, at, dword(part.page, limits, number, value));
    }
}

/// What the guest sees of dword `number` of a log page.
fn dword(page: u8, limits: &Limits, number: u64, value: u32) -> u32 {
    let is_kept = match page {
        lid::SUPPORTED => is_page(number),
        lid::ERRORS => return error(number % ERROR_DWORDS, value),
        // Up to the times of thermal management.
        lid::HEALTH => number < 58,
        lid::FIRMWARE_SLOTS => number < 16,
        lid::COMMANDS => is_command(number, limits),
        lid::SELF_TEST => number < 141,
        lid::ENDURANCE_GROUP | lid::ROTATIONAL_MEDIA => number < 128,
        lid::FEATURES => is_feature(number),
        _ => false,
    };
    if is_kept { value } else { 0 }
}

/// Error Information: count, SQID, status, location, LBA and namespace. The command identifier is the monitor's, so it
/// names no command; what is specific to commands, transports and vendors is left out.
fn error(number: u64, value: u32) -> u32 {
    match number {
        2 => join16(low16(value), NO_COMMAND),
        0..=6 => value,
        _ => 0,
    }
}
