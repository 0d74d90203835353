// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether a guest's RAM may be packed: what the bus of such a guest adds to addresses, it adds for all devices on it.

use address::Bdf;
use host::ResolvedDma;

use super::InspectError;
use crate::config::MemoryLayout;
use crate::memory::layouts::Layouts;

/// The layouts that RAM may have for `devices`, where `wanted` is asked for.
///
/// # Errors
/// [`InspectError::NotPacked`]
pub fn layouts(
    wanted: MemoryLayout,
    mut devices: impl Iterator<Item = (Bdf, ResolvedDma)>,
) -> Result<Layouts<'static>, InspectError> {
    let other = devices.find(|(_, mode)| *mode != ResolvedDma::Identity);
    match (wanted, other) {
        (MemoryLayout::Packed, Some((bdf, mode))) => Err(InspectError::NotPacked { bdf, mode }),
        (_, other) => Ok(Layouts::new(wanted, other.is_none())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_memory_is_for_devices_that_use_physical_addresses() {
        let bdf = |number| Bdf::new(0, number, 0, 0).unwrap();
        let with = |wanted, mode| {
            let devices = [(bdf(1), ResolvedDma::Identity), (bdf(2), mode)];
            layouts(wanted, devices.into_iter())
        };
        assert!(with(MemoryLayout::Packed, ResolvedDma::Identity).is_ok());
        for mode in [
            ResolvedDma::Iommu,
            ResolvedDma::Translate,
            ResolvedDma::Mediate,
        ] {
            assert!(with(MemoryLayout::Auto, mode).is_ok());
            let refused = with(MemoryLayout::Packed, mode).unwrap_err();
            assert!(
                matches!(refused, InspectError::NotPacked { bdf: found, .. } if found == bdf(2))
            );
        }
    }
}
