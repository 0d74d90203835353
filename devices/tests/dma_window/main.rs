// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The window as guests use it, register by register.

#![expect(clippy::unwrap_used, reason = "a test")]

mod function;

use std::sync::Arc;

use address::{Bdf, Gpa, Hpa};
use amdv1::TablePage;
use devices::guest_table::{GuestTable, Piece};
use devices::vfio_pci::BusMasterGate;
use devices_testing::dma_window as testing;

/// Values of the registers, as docs/reference/dma-window.md has them.
const MAGIC: u32 = 0x5744_5650;
const FEATURES: u32 = 0b111;
const STATUS_NONE: u32 = 0;
const STATUS_ENABLED: u32 = 1;
const STATUS_DISABLED: u32 = 2;
const STATUS_UNKNOWN: u32 = 3;
const STATUS_REFUSED: u32 = 4;

const REGISTERS: u64 = 0xfe00_0000;
const TABLE: u64 = 0xc0_0000_0000;

fn table(pieces: &[(u64, u64, u64)], base: u64) -> Arc<GuestTable<Box<[TablePage]>>> {
    let piece = |&(gpa, hpa, len)| Piece {
        gpa: Gpa(gpa),
        hpa: Hpa(hpa),
        len,
    };
    testing::table(pieces.iter().map(piece), Gpa(base)).unwrap()
}
