// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The third stage: the devices are bound to `/dev/iommu`, or opened through their groups, reset and quiet.

mod error;

use std::sync::Arc;

use host::{GuardObstacle, SysRoot};
use iommufd_backend::{PciSysfs, ResetMethod, VfioDevice, in_parallel, reset_each};

use super::inspect::{Guest, Source};
use super::open_kvm::Opened;
use crate::error::Error;
use crate::passthrough::assigned::{AddressSpaces, Assigned, AssignedDevice};
use crate::passthrough::dma_path::DmaPath;
use crate::passthrough::guarded::GuardError;
use crate::passthrough::host_infos;
use crate::passthrough::inspected::InspectedDevice;
use crate::passthrough::kernel_path::KernelPath;
use crate::teardown::Resources;

pub use error::BindStageError;

/// A guest whose devices are bound.
#[derive(Debug)]
pub(crate) struct Bound<'a> {
    pub(super) guest: Guest<'a>,
    pub(super) resources: Resources,
}

impl<'a> Opened<'a> {
    /// Binds the devices and resets them.
    pub fn bind(self) -> Result<Bound<'a>, Error> {
        let Self { guest, source } = self;
        let resources = match source {
            Source::Devices { path, devices } => {
                let sysfs = PciSysfs::default();
                let mut resources = Resources::new(Assigned::new(&path, &devices, &sysfs)?);
                let spaces = &mut resources.assigned.spaces;
                resources.assigned.devices = bind_all(&path, devices, &sysfs, spaces)?;
                resources
            }
            Source::None => Resources::new(Assigned::default()),
            Source::Synthetic(machine) => Resources::new(Assigned::synthetic(machine)),
        };
        Ok(Bound { guest, resources })
    }
}

/// Binds `devices` at once, each of which is reset by that, and resets those that are better reset with their bus,
/// since what that hits depends on which of them are bound. An error closes them again, before anything is pinned.
fn bind_all(
    path: &KernelPath,
    inspected: Vec<InspectedDevice>,
    sysfs: &PciSysfs,
    spaces: &mut AddressSpaces,
) -> Result<Vec<AssignedDevice>, Error> {
    let bound = in_parallel(&inspected, |device| bind_one(path, device, sysfs));
    let bound = bound.into_iter().collect::<Result<Vec<_>, _>>()?;
    for device in &bound {
        spaces.attach(device, path)?;
    }
    let methods = bound
        .iter()
        .zip(&inspected)
        .map(|(device, inspected)| reset_method(device, inspected, sysfs))
        .collect::<Result<Vec<_>, _>>()?;
    let infos = host_infos(&bound, &inspected, &methods)?;
    let mut devices = Vec::new();
    for (((device, inspected), info), reset) in
        bound.into_iter().zip(inspected).zip(infos).zip(methods)
    {
        devices.push(AssignedDevice {
            device: Arc::new(device),
            info,
            slot: inspected.slot,
            dma: inspected.dma,
            dma_width: inspected.dma_width,
            reset,
            own_pages: None,
        });
    }
    reset(&mut devices)?;
    Ok(devices)
}

fn bind_one(
    path: &KernelPath,
    inspected: &InspectedDevice,
    sysfs: &PciSysfs,
) -> Result<VfioDevice, Error> {
    let bdf = inspected.bdf;
    path.open_device(sysfs, bdf, inspected.kind)
        .or_else(|error| {
            // The kernel's EINVAL has many causes; this is the one that it has no message for.
            host::ensure_closed(&SysRoot::default(), bdf)?;
            Err(Error::Backend(error))
        })
}

/// How `device` is reset, which depends on which others are bound. One that cannot be needs the user's consent.
fn reset_method(
    device: &VfioDevice,
    inspected: &InspectedDevice,
    sysfs: &PciSysfs,
) -> Result<ResetMethod, Error> {
    let method = device.reset_method(sysfs)?;
    accept(method, inspected)
}

/// `method`, if the way of the device's DMA and the user accept it.
fn accept(method: ResetMethod, inspected: &InspectedDevice) -> Result<ResetMethod, Error> {
    let bdf = inspected.bdf;
    match &method {
        // Its memory is reused when the controller is disabled, for which a reset is the last resort.
        ResetMethod::None { .. } if matches!(inspected.dma, DmaPath::Guarded(_)) => {
            return Err(GuardError::of(bdf)(GuardObstacle::NoReset).into());
        }
        ResetMethod::None { others } if !inspected.accepts_no_reset => {
            let others = others.clone();
            return Err(BindStageError::NoReset { bdf, others }.into());
        }
        ResetMethod::None { .. } => log::warn!(
            "{bdf}: cannot be reset: it may continue its previous user's activity, and will keep \
             this guest's programming"
        ),
        method => log::info!("{bdf}: reset by {method}"),
    }
    Ok(method)
}

/// Resets those of `devices` that binding has not reset in the right way, each bus once.
fn reset(devices: &mut [AssignedDevice]) -> Result<(), Error> {
    let is_left = |device: &&mut AssignedDevice| !device.reset.is_done_by_binding();
    let mut left: Vec<_> = devices.iter_mut().filter(is_left).collect();
    let with_methods: Vec<_> = left.iter().map(|device| device.with_method()).collect();
    let results = reset_each(&with_methods);
    for (assigned, result) in left.iter_mut().zip(results) {
        let AssignedDevice { device, reset, .. } = &mut **assigned;
        match (result.map_err(Error::from), reset.fallback()) {
            (Ok(()), _) => {}
            // Binding has reset it in that way already.
            (Err(error), Some(own)) => {
                log::warn!(
                    "{}: {}; using its own reset ({own}), which may not stop it",
                    device.bdf(),
                    error.chain()
                );
                *reset = own;
            }
            (Err(error), None) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use iommufd_backend::CdevKind;

    use super::*;
    use crate::bus::slots;
    use crate::config::Poll;

    #[test]
    fn a_guarded_controller_has_to_be_reset_whatever_the_user_accepts() {
        let refused = |dma: DmaPath, accepts_no_reset, method: ResetMethod| {
            let bdf = "01:00.0".parse().unwrap();
            let inspected = InspectedDevice {
                bdf,
                slot: slots::assign(&[bdf]).unwrap()[0],
                kind: CdevKind::Noiommu,
                dma,
                accepts_no_reset,
                regions: Default::default(),
                dma_width: PciSysfs::at(Path::new("/nowhere")).dma_width(bdf),
            };
            accept(method, &inspected).err().map(|error| error.id())
        };
        let none = || ResetMethod::None { others: Vec::new() };
        assert_eq!(
            refused(DmaPath::Guarded(Poll::Auto), false, none()),
            Some("not-guarded")
        );
        assert_eq!(
            refused(DmaPath::Guarded(Poll::Auto), true, none()),
            Some("not-guarded")
        );
        assert_eq!(refused(DmaPath::Identity, false, none()), Some("no-reset"));
        assert_eq!(refused(DmaPath::Identity, true, none()), None);
        let flr = ResetMethod::Function("flr".to_owned());
        assert_eq!(refused(DmaPath::Guarded(Poll::Auto), false, flr), None);
    }
}
