//! The window as guests use it, register by register.

mod function;

use std::sync::Arc;

use address::{Bdf, Gpa, Hpa};
use amdv1::TablePage;

use super::registers::{
    FEATURES, MAGIC, STATUS_DISABLED, STATUS_ENABLED, STATUS_NONE, STATUS_REFUSED, STATUS_UNKNOWN,
};
use super::*;
use crate::guest_table::{GuestTable, Piece};
use crate::vfio_pci::BusMasterGate;

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
