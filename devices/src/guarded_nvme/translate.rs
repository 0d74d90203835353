// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The run's one table as what commands are translated by.

use address::{Gpa, Hpa};
use amdv1::TablePage;
use guarded_nvme::guest::{Access, Translate};

use crate::guest_table::GuestTable;

impl<P: AsRef<[TablePage]>> Translate for GuestTable<P> {
    /// Each leaf of the table is RAM and grants both kinds of access ([`GuestTable`]).
    #[inline]
    fn page(&self, gpa: Gpa, _: Access) -> Option<Hpa> {
        GuestTable::page(self, gpa)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_table::{Piece, Pieces};

    #[test]
    fn a_page_is_translated_if_all_of_it_is_memory() {
        let piece = |gpa, hpa, len| Piece {
            gpa: Gpa(gpa),
            hpa: Hpa(hpa),
            len,
        };
        let pieces = Pieces::new(vec![
            piece(0x10_0000, 0x7000, 0x1000),
            piece(0x10_1000, 0x20_0000, 0x20_0000),
        ])
        .unwrap();
        let pages: Vec<_> = (0..pieces.table_pages())
            .map(|_| TablePage::default())
            .collect();
        let table = GuestTable::build(&pieces, Gpa(0), pages).unwrap();
        for access in [Access::Read, Access::Write] {
            let page = |gpa| Translate::page(&table, Gpa(gpa), access);
            assert_eq!(page(0x10_0000), Some(Hpa(0x7000)));
            assert_eq!(page(0x10_2000), Some(Hpa(0x20_1000)));
            assert_eq!(page(0x30_0000), Some(Hpa(0x3f_f000)));
            for outside in [0, 0xf_f000, 0x30_1000, !0xfff] {
                assert_eq!(page(outside), None, "{outside:#x}");
            }
        }
    }
}
