// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Making a device quiet through sysfs, once no process has its VFIO device open any more.
//!
//! This is for devices that could not be reset while they were open: the host takes them away and
//! the driver core holds their lock (`EAGAIN`), or the monitor was killed. A function that a driver
//! other than VFIO's has bound is never reset.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use address::Bdf;
use pci_config::regs::{
    CAP_EXPRESS, EXP_FLAGS, EXP_FLAGS_SLOT, EXP_SLOT_STATUS, EXP_SLOT_STATUS_PRESENT, HEADER_END,
};

use crate::cdev::is_vfio_driver;
use crate::config_space::ConfigSpace;
use crate::error::Error;
use crate::evidence::{self, Because, Quiet};
use crate::group::GroupNode;
use crate::operation::Operation;
use crate::pci_sysfs::PciSysfs;
use crate::reset::{self, Affected, ResetMethod, strongest};

/// The name of no driver, so that no driver matches a function whose driver_override it is. It
/// contains `vfio`, so that one that was left behind counts as an override of ours.
const NO_DRIVER: &str = "vfio-keeper";

/// Between two attempts at a device that is on its way out of the kernel.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// A device whose user has closed it, or is about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The device.
    pub bdf: Bdf,
    /// The bridge that its bus belongs to, as long as it was there; `None` on a root bus.
    pub parent: Option<Bdf>,
    /// Whether the port above reported a card in its slot while the device was there. One that did
    /// not, as QEMU's root ports, does not report its end either.
    pub seen_in_slot: bool,
    /// Whether its user has accepted that it cannot be reset.
    pub accepted: bool,
    /// Whether its user opened it through its group.
    pub through_group: bool,
}

impl Leftover {
    /// The device `bdf`, which is there.
    #[must_use]
    pub fn of(sysfs: &PciSysfs, bdf: Bdf, accepted: bool, through_group: bool) -> Self {
        let parent = sysfs.parent(bdf);
        let has_card = parent.map(|parent| has_card(sysfs, parent));
        Self {
            bdf,
            parent,
            seen_in_slot: matches!(has_card, Some(Ok(Some(true)))),
            accepted,
            through_group,
        }
    }

    fn unusable(&self, reason: impl Into<String>) -> Error {
        Error::DeviceUnusable {
            bdf: self.bdf,
            reason: reason.into(),
        }
    }
}

/// Keeps all drivers that do not have the function yet away from it (Linux
/// Documentation/ABI/testing/sysfs-bus-pci, driver_override), until it is dropped.
#[derive(Debug)]
struct Fence {
    sysfs: PciSysfs,
    bdf: Bdf,
    before: String,
}

impl Fence {
    /// Raises it. Where the kernel takes the device's lock for that (before Linux 7), this waits for
    /// an unbind or removal to end, which in its turn waits for the device to be closed.
    fn raise(sysfs: &PciSysfs, bdf: Bdf) -> Result<Self, Error> {
        let before = sysfs.driver_override(bdf)?;
        sysfs.write(bdf, Attribute::DriverOverride, NO_DRIVER)?;
        Ok(Self {
            sysfs: sysfs.clone(),
            bdf,
            before,
        })
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let text = match self.before.as_str() {
            "" => "\n",
            name => name,
        };
        match self.sysfs.write(self.bdf, Attribute::DriverOverride, text) {
            // A function that was removed takes its override along.
            Ok(()) | Err(Error::NoDevice { .. }) => {}
            Err(error) => log::debug!("{error}"),
        }
    }
}

/// Makes the device quiet and finds evidence for it. `ours` are all devices of the same user, one
/// bus reset of which may hit the others. Waits at most `limit` for a device that the kernel is
/// just taking apart.
///
/// # Errors
/// Why there is no evidence; its memory must not be released then.
pub fn settle(
    sysfs: &PciSysfs,
    device: &Leftover,
    ours: &[Bdf],
    limit: Duration,
) -> Result<Quiet, Error> {
    let end = Instant::now() + limit;
    loop {
        let result = settle_once(sysfs, device, ours);
        match result {
            Err(error) if is_passing(&error) && Instant::now() < end => {
                log::debug!("{}: {error}; trying again", device.bdf);
                thread::sleep(RETRY_DELAY);
            }
            result => return result,
        }
    }
}

/// Whether the failure comes of a device that is being taken apart or in use for the moment.
fn is_passing(error: &Error) -> bool {
    let (Error::Device { source, .. }
    | Error::Read { source, .. }
    | Error::OpenGroup { source, .. }) = error
    else {
        return matches!(error, Error::NoDevice { .. });
    };
    matches!(
        source.raw_os_error(),
        Some(libc::ENOENT | libc::ENODEV | libc::EAGAIN | libc::EBUSY)
    )
}

fn settle_once(sysfs: &PciSysfs, device: &Leftover, ours: &[Bdf]) -> Result<Quiet, Error> {
    let _group = group_of_none(sysfs, device)?;
    match sysfs.directory(device.bdf) {
        Ok(_) => settle_present(sysfs, device, ours),
        Err(Error::NoDevice { .. }) => settle_removed(sysfs, device),
        Err(error) => Err(error),
    }
}

/// The group of a device that was opened through it: no one has the device open then, and no one opens it until the
/// group is dropped. `None` if it has no group any more: the kernel removes that when it takes the device from VFIO,
/// which waits until the device is closed (drivers/vfio/vfio_main.c vfio_unregister_group_dev).
fn group_of_none(sysfs: &PciSysfs, device: &Leftover) -> Result<Option<File>, Error> {
    let group = match GroupNode::of(sysfs, device.bdf) {
        Ok(group) => group.filter(|_| device.through_group),
        Err(Error::NoDevice { .. }) => None,
        Err(error) => return Err(error),
    };
    group.map(|group| group.open(sysfs, device.bdf)).transpose()
}

/// A function that sysfs shows.
fn settle_present(sysfs: &PciSysfs, device: &Leftover, ours: &[Bdf]) -> Result<Quiet, Error> {
    let bdf = device.bdf;
    // First the fence, then the question: no driver can come in between.
    let _fence = Fence::raise(sysfs, bdf)?;
    if let Some(driver) = foreign_driver(sysfs, bdf)? {
        return Err(device.unusable(format!(
            "it is bound to {driver}, and a device with a driver is not reset"
        )));
    }
    let config = Config::of(sysfs, bdf)?;
    if evidence::is_silent(&config)? && is_slot_empty(sysfs, device)? {
        return Ok(Quiet::new(bdf, Because::Gone));
    }
    evidence::stop(&config)?;
    let because = reset(sysfs, device, ours)?;
    evidence::confirm(&config)?;
    Ok(Quiet::new(bdf, because))
}

/// The driver that has `bdf`, unless it is one of VFIO's.
fn foreign_driver(sysfs: &PciSysfs, bdf: Bdf) -> Result<Option<String>, Error> {
    let driver = sysfs.driver(bdf)?;
    Ok(driver.filter(|driver| !is_vfio_driver(driver)))
}

/// Resets the function by the strongest method, alone or with what else there is of `ours` behind
/// its bridge.
fn reset(sysfs: &PciSysfs, device: &Leftover, ours: &[Bdf]) -> Result<Because, Error> {
    let methods = sysfs.reset_methods(device.bdf)?;
    let behind = device.parent.map(|parent| sysfs.behind(parent));
    let behind = behind.unwrap_or_default();
    let usable = reset::alone(methods.clone(), &behind);
    // Through sysfs any of them can be selected, not only the first.
    let method = ResetMethod::choose(strongest(&usable), || {
        behind
            .iter()
            .map(|function| affected(sysfs, *function, ours))
            .collect::<Result<_, Error>>()
    })?;
    match (&method, device.parent) {
        (ResetMethod::Function(method), _) => {
            reset_by(sysfs, device.bdf, &methods, method)?;
        }
        (ResetMethod::Bus { .. }, Some(parent)) => {
            reset_bridge(sysfs, device.bdf, parent)?;
        }
        (ResetMethod::None { .. }, _) if device.accepted => return Ok(Because::Accepted),
        _ => {
            return Err(device.unusable("every reset it has would also reset other devices"));
        }
    }
    Ok(Because::Reset(method.to_string()))
}

/// A function that a reset of the bus would hit: it is the same user's if no driver but VFIO's has it.
fn affected(sysfs: &PciSysfs, bdf: Bdf, ours: &[Bdf]) -> Result<Affected, Error> {
    let owned = ours.contains(&bdf) && foreign_driver(sysfs, bdf)?.is_none();
    Ok(Affected { bdf, owned })
}

/// Resets the function by `method` and no other of `methods`, its own list.
fn reset_by(sysfs: &PciSysfs, bdf: Bdf, methods: &[String], method: &str) -> Result<(), Error> {
    let is_choice = methods.len() > 1;
    if is_choice {
        sysfs.write(bdf, Attribute::ResetMethod, method)?;
    }
    let result = sysfs.write(bdf, Attribute::Reset, "1");
    if is_choice && let Err(error) = sysfs.write(bdf, Attribute::ResetMethod, &methods.join(" ")) {
        log::warn!("{bdf}: reset_method stays restricted to {method}: {error}");
    }
    result
}

/// Resets everything behind `parent` (needs CAP_SYS_ADMIN; drivers/pci/pci-sysfs.c
/// reset_subordinate_store, which kernels before Linux 6.13 need not have).
fn reset_bridge(sysfs: &PciSysfs, bdf: Bdf, parent: Bdf) -> Result<(), Error> {
    log::debug!("{bdf}: resetting the bus behind {parent}");
    let attribute = Attribute::ResetSubordinate;
    if !sysfs.directory(parent)?.join(attribute.name()).exists() {
        return Err(Error::DeviceUnusable {
            bdf,
            reason: format!(
                "only a reset of the bus behind {parent} would stop it, which this host kernel does \
                 not offer (reset_subordinate, Linux 6.13)"
            ),
        });
    }
    sysfs.write(parent, attribute, "1")
}

/// A function that was taken out of the kernel, by the host or because the card was pulled out. It
/// may still be present, unchanged. Its registers are out of reach, but a reset of its bus clears
/// all of them, COMMAND among them (PCI Express Base Specification, section 6.6.1).
fn settle_removed(sysfs: &PciSysfs, device: &Leftover) -> Result<Quiet, Error> {
    let Some(parent) = device.parent else {
        return Err(device.unusable("it was removed, and no bridge above can reset it"));
    };
    if sysfs.directory(parent).is_err() {
        return Err(device.unusable(format!("it was removed, and so was the bridge {parent}")));
    }
    if is_slot_empty(sysfs, device)? {
        return Ok(Quiet::new(device.bdf, Because::Gone));
    }
    let behind = sysfs.behind(parent);
    if !behind.is_empty() {
        let names: Vec<_> = behind.iter().map(Bdf::to_string).collect();
        return Err(device.unusable(format!(
            "it was removed, and resetting its bus would also reset {}",
            names.join(", ")
        )));
    }
    reset_bridge(sysfs, device.bdf, parent)?;
    Ok(Quiet::new(device.bdf, Because::Reset("bus".into())))
}

/// Whether the port above reports that no card is in its slot, and reported one before.
fn is_slot_empty(sysfs: &PciSysfs, device: &Leftover) -> Result<bool, Error> {
    match device.parent.filter(|_| device.seen_in_slot) {
        Some(parent) => Ok(has_card(sysfs, parent)? == Some(false)),
        None => Ok(false),
    }
}

/// Whether the port reports a card in its slot; `None` if it has no slot or does not answer.
fn has_card(sysfs: &PciSysfs, port: Bdf) -> Result<Option<bool>, Error> {
    let config = Config::of(sysfs, port)?;
    if evidence::is_silent(&config)? {
        return Ok(None);
    }
    let Some(express) = evidence::capability(&config, CAP_EXPRESS)? else {
        return Ok(None);
    };
    let flags = config.config_word(express + EXP_FLAGS)?;
    let status = config.config_word(express + EXP_SLOT_STATUS)?;
    let has_slot = flags & EXP_FLAGS_SLOT != 0;
    Ok(has_slot.then_some(status & EXP_SLOT_STATUS_PRESENT != 0))
}

/// Config space through sysfs. Without CAP_SYS_ADMIN only the first 64 bytes can be read
/// (drivers/pci/pci-sysfs.c pci_read_config); capabilities do not seem to be there then.
#[derive(Debug)]
struct Config {
    bdf: Bdf,
    file: File,
}

impl Config {
    fn of(sysfs: &PciSysfs, bdf: Bdf) -> Result<Self, Error> {
        let path = sysfs.directory(bdf)?.join("config");
        let opened = OpenOptions::new().read(true).write(true).open(path);
        opened
            .map(|file| Self { bdf, file })
            .map_err(|source| failed(bdf, Operation::OpenConfigSpace, source))
    }
}

impl ConfigSpace for Config {
    fn bdf(&self) -> Bdf {
        self.bdf
    }

    fn config_word(&self, offset: u16) -> Result<u16, Error> {
        let mut data = [0; 2];
        match self.file.read_exact_at(&mut data, offset.into()) {
            Ok(()) => Ok(u16::from_le_bytes(data)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && offset >= HEADER_END => {
                Ok(0)
            }
            Err(source) => Err(failed(self.bdf, Operation::ReadConfigSpace, source)),
        }
    }

    fn set_config_word(&self, offset: u16, value: u16) -> Result<(), Error> {
        self.file
            .write_all_at(&value.to_le_bytes(), offset.into())
            .map_err(|source| failed(self.bdf, Operation::WriteConfigSpace, source))
    }
}

fn failed(bdf: Bdf, operation: Operation, source: io::Error) -> Error {
    Error::Device {
        bdf,
        operation,
        source,
    }
}

impl PciSysfs {
    /// The bridge that the bus of `bdf` belongs to; `None` on a root bus.
    #[must_use]
    pub fn parent(&self, bdf: Bdf) -> Option<Bdf> {
        let path = fs::canonicalize(self.directory(bdf).ok()?).ok()?;
        path.parent()?.file_name()?.to_str()?.parse().ok()
    }

    /// All functions behind the bridge, in order, those behind other bridges there included.
    #[must_use]
    pub fn behind(&self, bridge: Bdf) -> Vec<Bdf> {
        let above = |function: &Bdf| {
            let directory = fs::canonicalize(self.directory(*function).ok()?).ok()?;
            let mut names = directory.ancestors().skip(1);
            names.find(|above| {
                let name = above.file_name().and_then(|name| name.to_str());
                name.is_some_and(|name| name == bridge.to_string())
            })?;
            Some(())
        };
        let mut functions = self.functions().unwrap_or_default();
        functions.retain(|function| above(function).is_some());
        functions
    }

    /// Writes `text` to the file `attribute` of `bdf`.
    fn write(&self, bdf: Bdf, attribute: Attribute, text: &str) -> Result<(), Error> {
        let path: PathBuf = self.directory(bdf)?.join(attribute.name());
        OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|source| failed(bdf, attribute.operation(), source))
    }
}

/// A file of a function in sysfs that is written.
#[derive(Clone, Copy, Debug)]
enum Attribute {
    DriverOverride,
    Reset,
    ResetMethod,
    ResetSubordinate,
}

impl Attribute {
    /// The file's name.
    fn name(self) -> &'static str {
        match self {
            Self::DriverOverride => "driver_override",
            Self::Reset => "reset",
            Self::ResetMethod => "reset_method",
            Self::ResetSubordinate => "reset_subordinate",
        }
    }

    /// What a write is for.
    fn operation(self) -> Operation {
        match self {
            Self::DriverOverride => Operation::KeepDriversAway,
            Self::Reset => Operation::ResetThroughSysfs,
            Self::ResetMethod => Operation::ChooseReset,
            Self::ResetSubordinate => Operation::ResetBusBehind,
        }
    }
}

#[cfg(test)]
mod tests;
