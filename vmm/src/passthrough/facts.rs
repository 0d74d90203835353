// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The fixed facts about a device.

use address::Hpa;
use devices::vfio_pci::{HostInfo, InterruptKind, PerKind, RegionInfo, Vectors};
use iommufd_backend::{Error, IrqInfo, REGIONS, ResetMethod, VfioDevice, host_page_size};

use super::inspected::InspectedDevice;
use super::{ROM, served};

/// Reads the fixed facts about `devices`, all that one guest gets, which were `inspected` and are
/// reset by `methods` in the same order. Interrupts that the host cannot serve are not among them;
/// the log has the reason.
///
/// # Errors
/// [`Error`]
pub(crate) fn host_infos(
    devices: &[VfioDevice],
    inspected: &[InspectedDevice],
    methods: &[ResetMethod],
) -> Result<Vec<HostInfo>, Error> {
    let read = devices
        .iter()
        .zip(inspected)
        .zip(methods)
        .map(|((device, inspected), reset)| host_info(device, inspected.addresses(), reset));
    let mut infos = read.collect::<Result<Vec<_>, _>>()?;
    served::keep(devices, &mut infos);
    Ok(infos)
}

/// `addresses` are those of BAR0 to BAR5, then of the ROM.
fn host_info(
    device: &VfioDevice,
    addresses: [Option<Hpa>; REGIONS],
    reset: &ResetMethod,
) -> Result<HostInfo, Error> {
    let region = |index: u32| {
        let region = device.region(index).cloned().unwrap_or_default();
        RegionInfo {
            size: region.size,
            host_address: addresses.get(index as usize).copied().flatten(),
            mappable: region.mappable,
        }
    };
    let mut interrupts = PerKind::default();
    for kind in InterruptKind::ALL {
        let IrqInfo { count, grows } = device.irq_info(kind)?;
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        interrupts[kind] = Vectors {
            count: device.kind().vectors(kind, count),
            grows,
        };
    }
    Ok(HostInfo {
        name: device.bdf().to_string(),
        bars: [0, 1, 2, 3, 4, 5].map(region),
        rom: region(ROM),
        config_size: device.config_size(),
        page_size: host_page_size(),
        interrupts,
        resettable: reset.is_function_reset(),
    })
}
