// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The size of the host kernel's pages, and of what it maps at once.

use std::sync::OnceLock;

use crate::sys;

/// Bytes of a page where the kernel does not tell, which no kernel does.
const USUAL: u64 = 4096;

/// Bytes of a page of the host's kernel, a power of two: 4 KiB on x86-64, and 4, 16 or 64 KiB on aarch64.
#[must_use]
pub fn host_page_size() -> u64 {
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let told = sys::page_size().filter(|size| size.is_power_of_two());
        told.unwrap_or(USUAL)
    })
}

/// Sizes at which CPU and KVM can map more than a page of `page` bytes at once, largest first: what an entry of a table
/// above the lowest one covers, and hugepages of several entries (arch/arm64/mm/hugetlbpage.c).
#[must_use]
pub fn large_sizes(page: u64) -> &'static [u64] {
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    match page {
        0x4000 => &[GIB, 32 * MIB, 2 * MIB],
        0x1_0000 => &[16 * GIB, 512 * MIB, 2 * MIB],
        _ => &[GIB, 2 * MIB],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hugepages::HugepageSize;

    #[test]
    fn the_kernel_tells_the_size() {
        assert!(host_page_size().is_power_of_two() && host_page_size() >= 4096);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(host_page_size(), 4096);
    }

    #[test]
    fn a_kernel_offers_hugepages_by_its_pages() {
        let offered = |page| HugepageSize::of_pages(page).map(|size| size.to_string());
        assert!(offered(0x1000).eq(["2M", "1G"]));
        assert!(offered(0x4000).eq(["2M", "32M", "1G"]));
        assert!(offered(0x1_0000).eq(["2M", "512M"]));
    }

    #[test]
    fn hugepages_are_mapped_at_once_whatever_the_page_size() {
        for page in [0x1000, 0x4000, 0x1_0000] {
            let sizes = large_sizes(page);
            assert!(sizes.is_sorted_by(|a, b| a > b));
            assert!(sizes.iter().all(|size| size.is_multiple_of(page)));
        }
        // No size is offered by no kernel.
        for size in HugepageSize::ALL {
            let mut pages = [0x1000, 0x4000, 0x1_0000].into_iter();
            assert!(pages.any(|page| large_sizes(page).contains(&size.bytes())));
        }
    }
}
