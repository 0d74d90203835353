//! Devices that are bound for one guest, and how they are made quiet again.

use std::sync::Arc;

use iommufd_backend::{IommuSpace, NoiommuSpace, ResetMethod, VfioDevice};

use crate::error::Error;

/// A bound device and the way to reset it.
#[derive(Debug)]
pub struct BoundDevice {
    /// The device.
    pub device: Arc<VfioDevice>,
    /// How it is reset.
    pub reset: ResetMethod,
}

/// Resets `devices`, each bus once. Bus mastering comes back as it was.
pub fn reset(devices: &[BoundDevice]) -> Vec<Error> {
    let mut done = Vec::new();
    let mut errors = Vec::new();
    for BoundDevice { device, reset } in devices {
        let result = match reset {
            ResetMethod::Function => device.reset(),
            ResetMethod::Bus(_) if done.contains(&device.bdf()) => Ok(()),
            ResetMethod::Bus(all) => {
                done.extend(all);
                device.reset_bus()
            }
            ResetMethod::None { .. } => Ok(()),
        };
        errors.extend(result.map_err(Error::from).err());
    }
    errors
}

/// Ends all DMA of `devices` for good: their bus mastering is off, nothing is under way, and
/// they are reset. Nobody may be able to turn bus mastering on again by then.
pub fn quiesce(devices: &[BoundDevice]) -> Vec<Error> {
    let mut errors: Vec<Error> = devices
        .iter()
        .filter_map(|bound| bound.device.stop_dma().err())
        .map(Error::from)
        .collect();
    errors.extend(reset(devices));
    errors
}

/// Closes `devices`, which are quiet, and then lets go of the memory that was pinned for them.
/// As long as one of them stays open, memory stays pinned.
pub fn release(
    devices: Vec<BoundDevice>,
    noiommu: Option<NoiommuSpace>,
    iommu: Option<IommuSpace>,
) -> Vec<Error> {
    let mut closed = true;
    for BoundDevice { device, .. } in devices {
        let bdf = device.bdf();
        if Arc::into_inner(device).is_none() {
            log::error!("{bdf} is still in use: guest memory stays pinned until the end");
            closed = false;
        } else {
            log::debug!("{bdf}: closed");
        }
    }
    if !closed {
        return Vec::new();
    }
    let noiommu = noiommu.and_then(|space| space.release().err());
    let iommu = iommu.and_then(|space| space.release().err());
    noiommu.into_iter().chain(iommu).map(Error::from).collect()
}
