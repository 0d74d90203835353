//! The window as guests use it, and the tables behind it.

mod function;
mod memory;
mod table;

use address::{Bdf, Gpa, Hpa};

use super::registers::{
    FEATURES, MAGIC, STATUS_DISABLED, STATUS_ENABLED, STATUS_NONE, STATUS_REFUSED, STATUS_UNKNOWN,
};
use super::*;
use crate::vfio_pci::BusMasterGate;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const REGISTERS: u64 = 0xfe00_0000;
const TABLE: u64 = 0xc0_0000_0000;

fn piece(gpa: u64, hpa: u64, len: u64) -> Piece {
    Piece {
        gpa: Gpa(gpa),
        hpa: Hpa(hpa),
        len,
    }
}

fn memory(pieces: &[(u64, u64, u64)]) -> GuestMemory {
    GuestMemory::new(pieces.iter().map(|&(gpa, hpa, len)| piece(gpa, hpa, len))).unwrap()
}

/// Where `gpa` lies and how many bytes are contiguous.
fn run(memory: &GuestMemory, gpa: u64, len: u64) -> Option<(u64, u64)> {
    let run = memory.translate(Gpa(gpa), len)?;
    Some((run.hpa.0, run.len))
}
