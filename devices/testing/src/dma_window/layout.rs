// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory decoded from bytes.

use address::{Gpa, Hpa};
use devices::guest_table::Piece;

use crate::input::Input;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Host-physical addresses end here.
const END: u64 = 1 << 52;
/// Nothing is laid out from here on in guest-physical space: the table's BAR is there.
pub(super) const TABLE: u64 = 1 << 48;

/// Memory of up to 8 pieces that do not overlap in guest-physical space, in the order made up.
///
/// Small and large, scattered and adjacent, aligned to each other and not, in reach of three
/// levels and of four; not so many pages that a table of them takes long.
pub(super) fn memory(input: &mut Input<'_>) -> Vec<Piece> {
    let count = 1 + input.byte() % 8;
    let mut pieces: Vec<Piece> = Vec::new();
    for _ in 0..count {
        let piece = piece(input, pieces.last().copied());
        let is_free = |other: &Piece| {
            piece.gpa.0 >= other.gpa.0 + other.len || other.gpa.0 >= piece.gpa.0 + piece.len
        };
        if piece.gpa.0 + piece.len <= TABLE && pieces.iter().all(is_free) {
            pieces.push(piece);
        }
    }
    pieces
}

fn piece(input: &mut Input<'_>, last: Option<Piece>) -> Piece {
    let base = input.choose(&[MIB, 2 * MIB, 4 * GIB, 511 * GIB, 512 * GIB, 1 << 47]);
    let mut gpa = base + input.word() * PAGE;
    let mut hpa = match input.byte() % 4 {
        // Aligned alike up to some size.
        0 => gpa ^ 1 << (12 + input.byte() % 30),
        1 => END - (1 + input.word()) * PAGE * 256,
        _ => input.word() * PAGE + input.word() * GIB,
    };
    if let Some(last) = last.filter(|_| input.byte().is_multiple_of(2)) {
        gpa = last.gpa.0 + last.len;
        if input.byte().is_multiple_of(2) {
            hpa = last.hpa.0 + last.len;
        }
    }
    let hpa = hpa.min(END - PAGE);
    let unit = input.choose(&[PAGE, 2 * MIB, GIB, 512 * GIB]);
    let asked = unit * (1 + u64::from(input.byte()) % 64);
    // At most 64 of the largest pages that fit both addresses.
    let most = 64 << (gpa ^ hpa).trailing_zeros().min(40);
    Piece {
        gpa: Gpa(gpa),
        hpa: Hpa(hpa),
        len: asked.min(most).min(END - hpa),
    }
}
