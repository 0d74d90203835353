// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Identify Controller, as a guest sees it.

use std::ops::Range;

use super::keep;
use crate::bits::{put16, put32, word16, word32};
use crate::limits::{Limits, Optional};
use crate::spec::PAGE_BYTES;
use crate::spec::identify::controller as at;
use crate::spec::registers::Version;

/// What is kept, wholly or for the rules below. Left out are CMIC, RRLS, OACS, FUSES, FNA, NWPC, SGLS, all that boot
/// partitions, NVMe-MI, self-test, the host memory buffer, RPMB, sanitize, host-controlled thermal management, ANA, NVM sets,
/// domains, persistent events, Copy and fabrics need, and vendors' bytes.
const KEPT: [Range<usize>; 13] = [
    // VID, SSVID, SN, MN, FR, RAB, IEEE.
    0..76,
    // MDTS, CNTLID, VER, RTD3R, RTD3E, OAES, CTRATT.
    77..100,
    // CNTRLTYPE, FGUID, CRDT1 to CRDT3.
    111..134,
    // ACL, AERL, FRMW, LPA, ELPE, NPSS.
    258..264,
    // WCTEMP, CCTEMP, MTFA.
    266..272,
    // TNVMCAP, UNVMCAP.
    280..312,
    // KAS.
    320..322,
    // ENDGIDMAX: the log page of endurance groups is allowed.
    340..342,
    // SQES, CQES, MAXCMD, NN, ONCS.
    512..522,
    // VWC, AWUN, AWUPF.
    525..530,
    // MNAN.
    540..544,
    // SUBNQN.
    768..1024,
    // Power state descriptors.
    2048..3072,
];

/// Changes Identify Controller to what the monitor serves.
pub fn controller(limits: &Limits, data: &mut [u8; PAGE_BYTES]) {
    keep(data, &KEPT);
    data[at::MDTS] = limits.mdts;
    let version = Version(word32(data, at::VERSION)).capped();
    put32(data, at::VERSION, version.0);
    let events = word32(data, at::EVENTS) & at::EVENTS_OFFERED;
    put32(data, at::EVENTS, events);
    let attributes = word32(data, at::ATTRIBUTES) & at::ATTRIBUTES_OFFERED;
    put32(data, at::ATTRIBUTES, attributes);
    data[at::AERL] = limits.events.saturating_sub(1);
    data[at::LPA] &= at::LPA_OFFERED;
    [data[at::SQES], data[at::CQES]] = at::ENTRY_SIZES;
    let commands = word16(data, at::MAX_COMMANDS);
    put16(data, at::MAX_COMMANDS, commands.min(limits.depth));
    let optional = Optional::offered(word16(data, at::ONCS));
    put16(data, at::ONCS, optional.bits());
}
