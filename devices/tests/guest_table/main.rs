// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What guest memory is made of, and the table of it.

#![expect(clippy::unwrap_used, reason = "a test")]

mod pieces;
mod table;

use address::{Gpa, Hpa};
use amdv1::TablePage;
use devices::guest_table::{GuestTable, Piece, Pieces, TableError};
use devices_testing::dma_window as testing;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TABLE: u64 = 0xc0_0000_0000;

fn piece(gpa: u64, hpa: u64, len: u64) -> Piece {
    Piece {
        gpa: Gpa(gpa),
        hpa: Hpa(hpa),
        len,
    }
}

fn pieces(pieces: &[(u64, u64, u64)]) -> Pieces {
    Pieces::new(pieces.iter().map(|&(gpa, hpa, len)| piece(gpa, hpa, len))).unwrap()
}

fn table(all: &[(u64, u64, u64)]) -> GuestTable<Box<[TablePage]>> {
    build(&pieces(all), TABLE).unwrap()
}

fn build(pieces: &Pieces, base: u64) -> Result<GuestTable<Box<[TablePage]>>, TableError> {
    let pages = (0..pieces.table_pages()).map(|_| TablePage::default());
    GuestTable::build(pieces, Gpa(base), pages.collect())
}

/// Where `gpa` lies and how many bytes are contiguous.
fn run(table: &GuestTable<Box<[TablePage]>>, gpa: u64, len: u64) -> Option<(u64, u64)> {
    let run = table.translate(Gpa(gpa), len)?;
    Some((run.hpa.0, run.len))
}
