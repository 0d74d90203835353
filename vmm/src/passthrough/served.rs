// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which kinds of interrupt the host supports. VFIO counts what a device's config space lists;
//! whether the host supports it is known only after a request.

use std::fs;
use std::path::Path;

use address::Bdf;
use devices::vfio_pci::{HostError, HostInfo, InterruptKind};
use iommufd_backend::VfioDevice;

use super::PassthroughError;
use crate::kvm::eventfd;

/// A device whose interrupts can be turned on and off.
trait Device {
    fn bdf(&self) -> Bdf;
    fn turn_on(&self, kind: InterruptKind) -> Result<(), PassthroughError>;
    fn turn_off(&self, kind: InterruptKind) -> Result<(), PassthroughError>;
}

impl Device for VfioDevice {
    fn bdf(&self) -> Bdf {
        self.bdf()
    }

    fn turn_on(&self, kind: InterruptKind) -> Result<(), PassthroughError> {
        let event = eventfd::new().map_err(PassthroughError::EventFd)?;
        // The kernel holds the eventfd until the interrupt is turned off.
        Ok(self.irq_enable(kind, 0, &[Some(eventfd::borrow(&event))])?)
    }

    fn turn_off(&self, kind: InterruptKind) -> Result<(), PassthroughError> {
        Ok(self.irq_disable(kind)?)
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
        for kind in messages() {
            let count = &mut info.interrupts[kind].count;
            let tried = (*count != 0).then(|| try_out(device, kind));
            if let Some(Err(error)) = tried {
                *count = 0;
                log::warn!(
                    "{}: {kind} is hidden from the guest, because the host does not support it: \
                     {}",
                    device.bdf(),
                    HostError::from(error)
                );
            }
        }
    }
    keep_lines(devices, infos, sys);
}

/// The kinds of message-signalled interrupts.
fn messages() -> impl Iterator<Item = InterruptKind> {
    InterruptKind::ALL
        .into_iter()
        .filter(|kind| kind.is_message())
}

fn try_out<D: Device>(device: &D, kind: InterruptKind) -> Result<(), PassthroughError> {
    device.turn_on(kind)?;
    device.turn_off(kind)
}

/// Turns the lines of all devices on before any goes off again, since two of these devices may
/// share one. First come those that have nothing else.
fn keep_lines<D: Device>(devices: &[D], infos: &mut [HostInfo], sys: &Path) {
    let mut order: Vec<usize> = (0..devices.len()).collect();
    let count = |at: &usize, kind| infos[*at].interrupts[kind].count;
    order.sort_by_key(|at| messages().any(|kind| count(at, kind) != 0));
    let mut on = Vec::new();
    for at in order {
        let device = &devices[at];
        let count = &mut infos[at].interrupts[InterruptKind::Intx].count;
        if *count == 0 {
            continue;
        }
        match device.turn_on(InterruptKind::Intx) {
            Ok(()) => on.push(device),
            Err(error) => {
                *count = 0;
                log::warn!(
                    "{}: INTx is hidden from the guest, because the host does not support it: {}{}",
                    device.bdf(),
                    HostError::from(error),
                    line(sys, device.bdf())
                );
            }
        }
    }
    for device in on {
        if let Err(error) = device.turn_off(InterruptKind::Intx) {
            log::warn!("{}: {}", device.bdf(), HostError::from(error));
        }
    }
}

/// The device's line and its user, as far as the kernel reports them.
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

    use devices::vfio_pci::Vectors;

    use super::*;

    /// Serves what it lists; `line` counts the users of the line, which allows only one.
    struct Fake<'a> {
        bdf: Bdf,
        serves: &'a [InterruptKind],
        line: &'a Cell<u32>,
        on: Cell<Option<InterruptKind>>,
    }

    impl Device for Fake<'_> {
        fn bdf(&self) -> Bdf {
            self.bdf
        }

        fn turn_on(&self, kind: InterruptKind) -> Result<(), PassthroughError> {
            assert_eq!(self.on.get(), None, "one kind at a time");
            let is_taken = kind == InterruptKind::Intx && self.line.get() != 0;
            if is_taken || !self.serves.contains(&kind) {
                let busy = io::Error::from_raw_os_error(libc::EBUSY);
                return Err(PassthroughError::EventFd(busy));
            }
            self.line
                .set(self.line.get() + u32::from(kind == InterruptKind::Intx));
            self.on.set(Some(kind));
            Ok(())
        }

        fn turn_off(&self, kind: InterruptKind) -> Result<(), PassthroughError> {
            assert_eq!(self.on.take(), Some(kind));
            self.line
                .set(self.line.get() - u32::from(kind == InterruptKind::Intx));
            Ok(())
        }
    }

    const ALL: [InterruptKind; 3] = InterruptKind::ALL;

    fn info(vectors: [u16; 3]) -> HostInfo {
        let counts = InterruptKind::ALL
            .into_iter()
            .zip(vectors.map(Vectors::fixed));
        HostInfo {
            name: "fake".into(),
            bars: Default::default(),
            rom: devices::vfio_pci::RegionInfo::default(),
            config_size: 256,
            page_size: 4096,
            interrupts: counts.collect(),
            resettable: true,
        }
    }

    fn kept(devices: &[(&[InterruptKind], [u16; 3])]) -> Vec<[u16; 3]> {
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
        left.map(|info| InterruptKind::ALL.map(|kind| info.interrupts[kind].count))
            .collect()
    }

    #[test]
    fn what_the_host_does_not_serve_is_left_out() {
        assert_eq!(kept(&[(&ALL, [1, 4, 8])]), [[1, 4, 8]]);
        assert_eq!(kept(&[(&[InterruptKind::Intx], [1, 4, 8])]), [[1, 0, 0]]);
        assert_eq!(kept(&[(&[InterruptKind::Msix], [1, 4, 8])]), [[0, 0, 8]]);
        assert_eq!(kept(&[(&[], [0, 0, 0])]), [[0, 0, 0]], "nothing to try");
    }

    #[test]
    fn a_line_that_takes_one_goes_to_the_device_that_has_nothing_else() {
        let both: [(&[InterruptKind], [u16; 3]); 2] = [(&ALL, [1, 1, 0]), (&ALL, [1, 0, 0])];
        assert_eq!(kept(&both), [[0, 1, 0], [1, 0, 0]]);
        let both: [(&[InterruptKind], [u16; 3]); 2] = [(&ALL, [1, 0, 0]), (&ALL, [1, 0, 0])];
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
