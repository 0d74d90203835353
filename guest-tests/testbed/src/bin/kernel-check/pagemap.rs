// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where this process's memory is by `/proc/self/pagemap`.

use address::{Hpa, Hva};
use iommufd_backend::{Mapping, PageState, Pagemap};

const PAGE: u64 = 4096;

/// Physical address of the byte at `address`, whose page was touched.
pub fn hpa(pagemap: &Pagemap, address: Hva) -> Result<Hpa, Box<dyn std::error::Error>> {
    match pagemap.pages(address, 1, PAGE).next().transpose()? {
        Some(PageState::At(page)) => Ok(page + address.0 % PAGE),
        other => Err(format!("pagemap reports {other:?} for {address}").into()),
    }
}

/// Reads a byte of each of the pages `pages`, in that order, of the file that fills `mapping`:
/// pagemap shows only pages in this process's page tables.
pub fn touch(mapping: &Mapping, pages: impl IntoIterator<Item = u64>) {
    for page in pages {
        assert!(page < mapping.len() / PAGE);
        let Ok(address) = usize::try_from(mapping.start().0 + page * PAGE) else {
            continue;
        };
        // SAFETY: the page is inside the mapping, which is readable and outlives the call.
        unsafe { std::ptr::with_exposed_provenance::<u8>(address).read_volatile() };
    }
}
