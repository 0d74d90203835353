// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Get Log Page: which pages are allowed, and what a guest sees of them.

use super::Bounce;
use super::admin::{Answer, Filter, LogPart, Rules, Verdict, to_host};
use crate::bits::{byte, high32, join16, join32, low16, low32, upper16};
use crate::spec::admin::{GET_LOG_PAGE, lid};
use crate::spec::{Cdw, DeviceCommand, Entry, Status};

const RETAIN: u32 = 1 << 15;
const INDEX_OFFSETS: u32 = 1 << 23;

/// Whether the page is on the list. Telemetry, persistent events and vendors' pages are not: they may hold host addresses.
#[must_use]
pub fn is_offered(page: u8) -> bool {
    matches!(
        page,
        lid::SUPPORTED
            | lid::ERRORS
            | lid::HEALTH
            | lid::FIRMWARE_SLOTS
            | lid::CHANGED_NAMESPACES
            | lid::COMMANDS
            | lid::SELF_TEST
            | lid::ENDURANCE_GROUP
            | lid::FEATURES
            | lid::ROTATIONAL_MEDIA
    )
}

/// What becomes of a Get Log Page command. Its length is (NUMDU:NUMDL + 1) * 4 bytes; NUMDU and the offset count only
/// where they are offered.
///
/// # Errors
///
/// 1/09 for a page that is not allowed, 0/02 for a length or an offset that is not, 0/0B for a namespace that is not there.
pub fn check(entry: &Entry, rules: &Rules<'_>) -> Result<Verdict, Status> {
    let (first, second) = (entry.cdw(Cdw::D10), entry.cdw(Cdw::D11));
    let page = byte(first, 0);
    if !is_offered(page) {
        return Err(Status::INVALID_LOG_PAGE);
    }
    if !rules.namespaces.allows(entry.nsid()) {
        return Err(Status::INVALID_NAMESPACE);
    }
    let extended = rules.limits.extended_logs;
    let upper = if extended { low16(second) } else { 0 };
    let dwords = join16(upper16(first), upper);
    let bytes = (u64::from(dwords) + 1) * 4;
    let offset = match extended {
        true => join32(entry.cdw(Cdw::D12), entry.cdw(Cdw::D13)),
        false => 0,
    };
    let last = entry.cdw(Cdw::D14);
    let is_other = last & INDEX_OFFSETS != 0 || byte(last, 3) != 0;
    if bytes > rules.limits.log() || offset % 4 != 0 || is_other {
        return Err(Status::INVALID_FIELD);
    }
    let payload = to_host(entry, low32(bytes));
    let retain = first & RETAIN != 0;
    let part = LogPart {
        page,
        offset,
        retain,
    };
    if page == lid::CHANGED_NAMESPACES {
        return Ok(Verdict::Answer(Answer::ChangedNamespaces(part), payload));
    }
    let command = DeviceCommand::new(GET_LOG_PAGE, entry.nsid())
        .with(
            Cdw::D10,
            u32::from(page) | first & RETAIN | join16(0, upper16(first)),
        )
        .with(Cdw::D11, join16(upper, specific(page, upper16(second))))
        .with(Cdw::D12, low32(offset))
        .with(Cdw::D13, high32(offset));
    Ok(Verdict::Bounce(
        Bounce { command, payload },
        Filter::Log(part),
    ))
}

/// Log Specific Identifier: an endurance group, for the pages of one.
fn specific(page: u8, identifier: u16) -> u16 {
    match page {
        lid::ENDURANCE_GROUP | lid::ROTATIONAL_MEDIA => identifier,
        _ => 0,
    }
}
