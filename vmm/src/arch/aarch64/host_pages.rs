// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which modes work where the host kernel's pages have more than 4 KiB.

use address::Bdf;
use host::ResolvedDma;

/// Pages of the table that the monitor shows a guest by itself, as a memslot. Doorbells are no memory on this architecture
/// ([`DEVICE_STORES_ARE_CACHED`](super::layout::DEVICE_STORES_ARE_CACHED)).
const SMALL: u64 = 4096;

/// The host's pages are too large for a mode, in which the monitor shows the guest pages of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "PCI device {bdf}: dma={} requires a host kernel with pages of 4 KiB, and those of this host have {} KiB",
    mode.name(), bytes / 1024
)]
pub struct HostPagesError {
    /// The device.
    pub bdf: Bdf,
    /// Its mode.
    pub mode: ResolvedDma,
    /// Bytes of a page of the host's.
    pub bytes: u64,
}

impl HostPagesError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        let bdf = self.bdf;
        format!(
            "use --device {bdf},dma=identity, if the guest is to be trusted like root; or boot a host kernel with \
             CONFIG_ARM64_4K_PAGES (on Raspberry Pi OS: kernel=kernel8.img in /boot/firmware/config.txt)"
        )
    }
}

/// Whether `devices` work on a host whose pages have `page` bytes.
///
/// # Errors
/// [`HostPagesError`]
pub fn check(devices: &[(Bdf, ResolvedDma)], page: u64) -> Result<(), HostPagesError> {
    let shows = |mode: &ResolvedDma| match mode {
        ResolvedDma::Translate => true,
        ResolvedDma::Iommu | ResolvedDma::Identity | ResolvedDma::Mediate => false,
    };
    let mut concerned = devices.iter().filter(|(_, mode)| shows(mode));
    match concerned.next().filter(|_| page > SMALL) {
        Some(&(bdf, mode)) => Err(HostPagesError {
            bdf,
            mode,
            bytes: page,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mode_that_shows_pages_needs_small_ones() {
        use ResolvedDma::{Identity, Iommu, Mediate, Translate};
        let bdf: Bdf = "0000:01:00.0".parse().unwrap();
        for (mode, needs) in [
            (Iommu, false),
            (Identity, false),
            (Translate, true),
            (Mediate, false),
        ] {
            let devices = [(bdf, Identity), (bdf, mode)];
            assert_eq!(check(&devices, 0x1000), Ok(()));
            for bytes in [0x4000, 0x1_0000] {
                let expected = needs.then_some(HostPagesError { bdf, mode, bytes });
                assert_eq!(check(&devices, bytes).err(), expected);
            }
        }
    }
}
