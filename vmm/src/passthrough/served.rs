// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which kinds of interrupt the host can serve. VFIO counts what a device's config space says; whether
//! the host can do it shows when it is asked to.

use std::fs;
use std::path::Path;

use address::Bdf;
use devices::vfio_pci::{HostError, HostInfo};
use iommufd_backend::{IrqIndex, VfioDevice};

use super::PassthroughError;
use crate::kvm::eventfd;

/// A device whose interrupts can be turned on and off.
trait Device {
    fn bdf(&self) -> Bdf;
    fn turn_on(&self, index: IrqIndex) -> Result<(), PassthroughError>;
    fn turn_off(&self, index: IrqIndex) -> Result<(), PassthroughError>;
}

impl Device for VfioDevice {
    fn bdf(&self) -> Bdf {
        self.bdf()
    }

    fn turn_on(&self, index: IrqIndex) -> Result<(), PassthroughError> {
        let event = eventfd::new().map_err(PassthroughError::EventFd)?;
        // The kernel holds the eventfd until the interrupt is turned off.
        Ok(self.irq_enable(index, 0, &[Some(eventfd::borrow(&event))])?)
    }

    fn turn_off(&self, index: IrqIndex) -> Result<(), PassthroughError> {
        Ok(self.irq_disable(index)?)
    }
}

/// Takes what the host cannot serve to `devices` out of their `infos`, by turning each kind of
/// interrupt on and off: MSI and MSI-X are refused by kernels with `pci=nomsi` and below bridges
/// that do not pass them; INTx where the device cannot mask its line and another has that.
pub(super) fn keep(devices: &[VfioDevice], infos: &mut [HostInfo]) {
    keep_of(devices, infos, Path::new("/sys"));
}

fn keep_of<D: Device>(devices: &[D], infos: &mut [HostInfo], sys: &Path) {
    for (device, info) in devices.iter().zip(infos.iter_mut()) {
        for (index, count) in [
            (IrqIndex::Msi, &mut info.msi_vectors),
            (IrqIndex::Msix, &mut info.msix_vectors),
        ] {
            let tried = (*count != 0).then(|| try_out(device, index));
            if let Some(Err(error)) = tried {
                *count = 0;
                log::warn!(
                    "{}: its guest is not shown {index}, which the host does not serve: {}",
                    device.bdf(),
                    HostError::from(error)
                );
            }
        }
    }
    keep_lines(devices, infos, sys);
}

fn try_out<D: Device>(device: &D, index: IrqIndex) -> Result<(), PassthroughError> {
    device.turn_on(index)?;
    device.turn_off(index)
}

/// Turns the lines of all devices on before any goes off again, since two of these devices may
/// share one. First come those that have nothing else.
fn keep_lines<D: Device>(devices: &[D], infos: &mut [HostInfo], sys: &Path) {
    let mut order: Vec<usize> = (0..devices.len()).collect();
    order.sort_by_key(|at| infos[*at].msi_vectors != 0 || infos[*at].msix_vectors != 0);
    let mut on = Vec::new();
    for at in order {
        let (device, info) = (&devices[at], &mut infos[at]);
        if info.intx_vectors == 0 {
            continue;
        }
        match device.turn_on(IrqIndex::Intx) {
            Ok(()) => on.push(device),
            Err(error) => {
                info.intx_vectors = 0;
                log::warn!(
                    "{}: its guest is not shown INTx, which the host does not serve: {}{}",
                    device.bdf(),
                    HostError::from(error),
                    line(sys, device.bdf())
                );
            }
        }
    }
    for device in on {
        if let Err(error) = device.turn_off(IrqIndex::Intx) {
            log::warn!("{}: {}", device.bdf(), HostError::from(error));
        }
    }
}

/// The device's line and who has it, as far as the kernel tells.
fn line(sys: &Path, bdf: Bdf) -> String {
    let read = |path: String| fs::read_to_string(sys.join(path)).ok();
    let number = read(format!("bus/pci/devices/{bdf}/irq"));
    let number = number.as_deref().map_or("", str::trim);
    if number.is_empty() || number == "0" {
        return String::new();
    }
    let users = read(format!("kernel/irq/{number}/actions"));
    let users = users.as_deref().map_or("", str::trim);
    if users.is_empty() {
        return format!("; its line is {number}");
    }
    format!(
        "; its line {number} is used by {}",
        users.replace(',', ", ")
    )
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    use super::*;

    /// Serves what it lists; `line` counts who has the line, which takes one only.
    struct Fake<'a> {
        bdf: Bdf,
        serves: &'a [IrqIndex],
        line: &'a Cell<u32>,
        on: Cell<Option<IrqIndex>>,
    }

    impl Device for Fake<'_> {
        fn bdf(&self) -> Bdf {
            self.bdf
        }

        fn turn_on(&self, index: IrqIndex) -> Result<(), PassthroughError> {
            assert_eq!(self.on.get(), None, "one kind at a time");
            let is_taken = index == IrqIndex::Intx && self.line.get() != 0;
            if is_taken || !self.serves.contains(&index) {
                let busy = io::Error::from_raw_os_error(libc::EBUSY);
                return Err(PassthroughError::EventFd(busy));
            }
            self.line
                .set(self.line.get() + u32::from(index == IrqIndex::Intx));
            self.on.set(Some(index));
            Ok(())
        }

        fn turn_off(&self, index: IrqIndex) -> Result<(), PassthroughError> {
            assert_eq!(self.on.take(), Some(index));
            self.line
                .set(self.line.get() - u32::from(index == IrqIndex::Intx));
            Ok(())
        }
    }

    const ALL: [IrqIndex; 3] = [IrqIndex::Intx, IrqIndex::Msi, IrqIndex::Msix];

    fn info(vectors: [u16; 3]) -> HostInfo {
        let [intx_vectors, msi_vectors, msix_vectors] = vectors;
        HostInfo {
            name: "fake".into(),
            bars: Default::default(),
            rom: devices::vfio_pci::RegionInfo::default(),
            config_size: 256,
            intx_vectors,
            msi_vectors,
            msix_vectors,
            msix_grows: true,
            resettable: true,
        }
    }

    fn kept(devices: &[(&[IrqIndex], [u16; 3])]) -> Vec<[u16; 3]> {
        let line = Cell::new(0);
        let fakes: Vec<_> = (1..)
            .zip(devices)
            .map(|(number, (serves, _))| Fake {
                bdf: Bdf::new(0, number, 0, 0).unwrap(),
                serves,
                line: &line,
                on: Cell::new(None),
            })
            .collect();
        let mut infos: Vec<_> = devices.iter().map(|(_, vectors)| info(*vectors)).collect();
        keep_of(&fakes, &mut infos, Path::new("/nowhere"));
        assert_eq!(line.get(), 0, "all off again");
        let left = infos.iter();
        left.map(|info| [info.intx_vectors, info.msi_vectors, info.msix_vectors])
            .collect()
    }

    #[test]
    fn what_the_host_does_not_serve_is_left_out() {
        assert_eq!(kept(&[(&ALL, [1, 4, 8])]), [[1, 4, 8]]);
        assert_eq!(kept(&[(&[IrqIndex::Intx], [1, 4, 8])]), [[1, 0, 0]]);
        assert_eq!(kept(&[(&[IrqIndex::Msix], [1, 4, 8])]), [[0, 0, 8]]);
        assert_eq!(kept(&[(&[], [0, 0, 0])]), [[0, 0, 0]], "nothing to try");
    }

    #[test]
    fn a_line_that_takes_one_goes_to_the_device_that_has_nothing_else() {
        let both: [(&[IrqIndex], [u16; 3]); 2] = [(&ALL, [1, 1, 0]), (&ALL, [1, 0, 0])];
        assert_eq!(kept(&both), [[0, 1, 0], [1, 0, 0]]);
        let both: [(&[IrqIndex], [u16; 3]); 2] = [(&ALL, [1, 0, 0]), (&ALL, [1, 0, 0])];
        assert_eq!(kept(&both), [[1, 0, 0], [0, 0, 0]]);
    }

    #[test]
    fn the_line_and_its_users_are_named() {
        let sys = tempfile::tempdir().unwrap();
        let bdf = Bdf::new(0, 1, 0, 0).unwrap();
        assert_eq!(line(sys.path(), bdf), "");
        let write = |path: &str, text: &str| {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("bus/pci/devices/0000:01:00.0/irq", "16\n");
        assert_eq!(line(sys.path(), bdf), "; its line is 16");
        write("kernel/irq/16/actions", "ahci,vfio-intx(0000:02:00.0)\n");
        assert_eq!(
            line(sys.path(), bdf),
            "; its line 16 is used by ahci, vfio-intx(0000:02:00.0)"
        );
        write("bus/pci/devices/0000:01:00.0/irq", "0\n");
        assert_eq!(line(sys.path(), bdf), "");
    }
}
