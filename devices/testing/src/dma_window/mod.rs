// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A plain model of the window, and a driver of random operations that holds the window against
//! it. For tests and fuzzing.

#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths are small, and register values are cut on purpose"
)]

mod layout;
mod model;
pub mod operations;

use std::sync::Arc;

use address::Gpa;
use amdv1::TablePage;
use devices::guest_table::{GuestTable, Piece, Pieces};

use crate::input::Input;

/// Guest memory made up from `bytes`: pieces that do not overlap, in any order.
#[must_use]
pub fn pieces(bytes: &[u8]) -> Vec<Piece> {
    layout::memory(&mut Input(bytes))
}

/// The table of `pieces`, with its pages at `base`, on the heap; `None` if there cannot be one.
#[must_use]
pub fn table(
    pieces: impl IntoIterator<Item = Piece>,
    base: Gpa,
) -> Option<Arc<GuestTable<Box<[TablePage]>>>> {
    let pieces = Pieces::new(pieces).ok()?;
    let pages = (0..pieces.table_pages()).map(|_| TablePage::default());
    let table = GuestTable::build(&pieces, base, pages.collect::<Box<[_]>>());
    table.ok().map(Arc::new)
}
