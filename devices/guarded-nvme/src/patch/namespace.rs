// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is kept of the structures of namespaces (Base 5.1.13.2; NVM Command Set 4.1.5).

use std::ops::Range;

/// Identify Namespace: all but NMIC, RESCAP, the limits of Copy, ANAGRPID and vendors' bytes. The formats are kept, as
/// drivers look theirs up there.
pub const NAMESPACE: [Range<usize>; 4] = [
    // NSZE to DPS.
    0..30,
    // FPI, DLFEAT, atomic writes, NOIOB, NVMCAP, NPWG to NOWS.
    32..74,
    // NULBAF.
    82..83,
    // NSATTR, NVMSETID, ENDGID, NGUID, EUI64, formats.
    99..384,
];

/// NVM command set, Identify Namespace: LBSTM, PIC, PIFA and the formats' extensions.
pub const SPECIFIC_NAMESPACE: [Range<usize>; 1] = [0..268];

/// NVM command set, Identify Controller: VSL, WZSL, WUSL, DMRL, DMRSL, DMSL.
pub const SPECIFIC_CONTROLLER: [Range<usize>; 1] = [0..16];

/// I/O Command Set Independent Identify Namespace: all but NMIC, RESCAP and ANAGRPID.
pub const INDEPENDENT_NAMESPACE: [Range<usize>; 3] = [
    // NSFEAT.
    0..1,
    // FPI.
    3..4,
    // NSATTR, NVMSETID, ENDGID, NSTAT.
    8..15,
];
