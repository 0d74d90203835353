//! The fixed facts about a device.

use devices::vfio_pci::{HostInfo, RegionInfo};
use iommufd_backend::{CdevKind, Error, IrqIndex, PciSysfs, VfioDevice};

use super::{ROM, served};

/// Reads the fixed facts about `devices`, all that one guest gets, each in its order. Interrupts
/// that the host cannot serve are not among them; the log says why.
///
/// # Errors
/// [`Error`]
pub fn host_infos(devices: &[VfioDevice], sysfs: &PciSysfs) -> Result<Vec<HostInfo>, Error> {
    let read = devices.iter().map(|device| host_info(device, sysfs));
    let mut infos = read.collect::<Result<Vec<_>, _>>()?;
    served::keep(devices, &mut infos);
    Ok(infos)
}

fn host_info(device: &VfioDevice, sysfs: &PciSysfs) -> Result<HostInfo, Error> {
    let addresses = sysfs.memory_regions(device.bdf())?;
    let region = |index: u32| {
        let region = device.region(index).cloned().unwrap_or_default();
        RegionInfo {
            size: region.size,
            host_address: addresses.get(index as usize).copied().flatten(),
            mappable: region.mappable,
        }
    };
    let vectors = |count| u16::try_from(count).unwrap_or(u16::MAX);
    let msi = vectors(device.irq_count(IrqIndex::Msi)?);
    let msix = device.irq_info(IrqIndex::Msix)?;
    Ok(HostInfo {
        name: device.bdf().to_string(),
        bars: [0, 1, 2, 3, 4, 5].map(region),
        rom: region(ROM),
        config_size: device.config_size(),
        intx_vectors: vectors(device.irq_count(IrqIndex::Intx)?),
        // Without interrupt remapping x86 hosts cannot give a device a block of vectors.
        msi_vectors: match device.kind() {
            CdevKind::Noiommu => msi.min(1),
            CdevKind::Iommu => msi,
        },
        msix_vectors: vectors(msix.count),
        msix_grows: msix.grows,
        resettable: device.has_function_reset(sysfs)?,
    })
}
