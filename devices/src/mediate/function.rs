// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A host function whose DMA registers are mediated.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use address::Gpa;
use pci_config::regs::HEADER_END;

use crate::vfio_pci::{
    FailureHook, HostError, HostFunction, HostInfo, InterruptKind, MsiMessage, Region,
};

use super::error_reporting::ErrorReporting;
use super::profile::Profile;
use super::routes::{Routes, Target};
use super::setup::{self, SetupError};
use super::statistics::Counters;
use super::translate::Translate;

/// What the monitor decides for a mediated function.
pub struct Options {
    /// The guest's memory.
    pub translate: Box<dyn Translate>,
    /// Called when a transfer is refused whose profile requests that the VM is stopped, once until
    /// the function is reset.
    pub on_stop: FailureHook,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").finish_non_exhaustive()
    }
}

/// What has been logged: a guest must not fill the log.
#[derive(Clone, Debug, Default)]
struct Logged {
    /// Of which BARs an access was kept from the device.
    closed: [bool; 6],
    /// A store to a register of `busy` or `status` was dropped.
    status: bool,
    /// Registers of config space whose writes are dropped.
    config: BTreeSet<u16>,
}

/// A [`HostFunction`] between a passed-through function and its device, which lets no DMA address
/// through that it has not checked.
pub struct MediatedFunction<H> {
    pub(super) host: H,
    /// As the device has it, but for the pages that trap.
    info: HostInfo,
    trapped: Vec<(u8, Range<u64>)>,
    /// Config space that the guest may write behind the header.
    writable: Vec<Range<u16>>,
    reporting: ErrorReporting,
    pub(super) profile: Profile,
    routes: Routes,
    /// For each register what the guest wrote.
    pub(super) values: Vec<u64>,
    /// For each transfer whether its status register shows a refusal.
    pub(super) shows_refusal: Vec<bool>,
    pub(super) stopped: bool,
    logged: Logged,
    pub(super) counters: Counters,
    pub(super) translate: Box<dyn Translate>,
    pub(super) on_stop: FailureHook,
}

impl<H: fmt::Debug> fmt::Debug for MediatedFunction<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediatedFunction")
            .field("host", &self.host)
            .field("profile", &self.profile.name())
            .field("statistics", &self.counters.read())
            .finish_non_exhaustive()
    }
}

impl<H: HostFunction> MediatedFunction<H> {
    /// Puts `profile` in front of `host`.
    ///
    /// # Errors
    ///
    /// If the profile is for another device, or config space cannot be read.
    pub fn new(mut host: H, profile: Profile, options: Options) -> Result<Self, SetupError> {
        setup::check(&mut host, &profile)?;
        let found = setup::find(&mut host)?;
        let msix = found.msix_table.as_ref().map(|table| table.bar);
        let (info, trapped) = setup::trim(host.info().clone(), &profile, msix);
        let sizes = [0, 1, 2, 3, 4, 5].map(|bar: usize| info.bars[bar].size);
        Ok(Self {
            info,
            trapped,
            writable: found.writable,
            reporting: found.reporting,
            routes: Routes::new(&profile, sizes, found.msix_table),
            values: vec![0; profile.registers.len()],
            shows_refusal: vec![false; profile.transfers.len()],
            stopped: false,
            logged: Logged::default(),
            counters: Counters::default(),
            translate: options.translate,
            on_stop: options.on_stop,
            profile,
            host,
        })
    }

    /// What the function has done, readable from anywhere.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// Counts an access that the device does not have.
    pub(super) fn ignore(&self) {
        self.counters.update(|statistics| statistics.ignored += 1);
    }

    /// Counts an access to a closed BAR.
    fn ignore_closed(&mut self, bar: u8) {
        self.ignore();
        let logged = &mut self.logged.closed[usize::from(bar)];
        if !std::mem::replace(logged, true) {
            log::warn!(
                "{}: BAR {bar} is closed: the guest's accesses to it reach only registers that the \
                 profile {:?} describes (open_bars = [{bar}] opens it)",
                self.info.name,
                self.profile.name()
            );
        }
    }

    /// Counts a write to config space that only the device defines.
    fn ignore_config(&mut self, offset: u16) {
        self.ignore();
        if self.logged.config.insert(offset & !3) {
            log::info!(
                "{}: config space at {offset:#x}: the guest's writes are dropped, because their \
                 effect on the device is unknown",
                self.info.name
            );
        }
    }

    /// Counts a store to a register of `busy` or `status`.
    pub(super) fn ignore_status(&mut self, register: usize) {
        self.ignore();
        if !std::mem::replace(&mut self.logged.status, true) {
            log::warn!(
                "{}: the guest's stores to register {:?}, this one and later ones, are dropped: it \
                 has no writable bits",
                self.info.name,
                self.profile.registers[register].name
            );
        }
    }

    /// Forgets what the guest wrote; a stopped function continues.
    fn forget(&mut self) {
        self.routes.reset();
        self.reporting.reset();
        self.values.fill(0);
        self.shows_refusal.fill(false);
        self.stopped = false;
    }

    /// Whether a write to config space cannot reach anything that only the device defines.
    fn is_known_config(&self, offset: u16, length: usize) -> bool {
        let end = u16::try_from(length)
            .ok()
            .and_then(|length| offset.checked_add(length));
        let Some(end) = end else {
            return false;
        };
        let inside = |range: &Range<u16>| range.start <= offset && end <= range.end;
        end <= HEADER_END || self.writable.iter().any(inside)
    }
}

impl<H: HostFunction> HostFunction for MediatedFunction<H> {
    fn info(&self) -> &HostInfo {
        &self.info
    }

    fn config_read(&mut self, offset: u16, data: &mut [u8]) -> Result<(), HostError> {
        self.host.config_read(offset, data)?;
        self.reporting.show(offset, data);
        Ok(())
    }

    fn config_read_all(&mut self, data: &mut [u8]) -> Result<(), HostError> {
        self.host.config_read_all(data)?;
        for (offset, dword) in (0..).step_by(4).zip(data.chunks_mut(4)) {
            self.reporting.show(offset, dword);
        }
        Ok(())
    }

    /// Vendor-specific capabilities can be a second way to a device's registers, so of config
    /// space behind the header only power state and PCI Express device control are written, but
    /// for the bits of error reporting, which are the host's.
    fn config_write(&mut self, offset: u16, data: &[u8]) -> Result<(), HostError> {
        if !self.is_known_config(offset, data.len()) {
            self.ignore_config(offset);
            return Ok(());
        }
        let mut data = data.to_vec();
        self.reporting.take_out(offset, &mut data);
        self.host.config_write(offset, &data)
    }

    fn region_read(
        &mut self,
        region: Region,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), HostError> {
        let Region::Bar(bar) = region else {
            return self.host.region_read(region, offset, data);
        };
        match self.routes.target(bar, offset, data.len()) {
            Target::Registers { bar, offset } => self.read_registers(bar, offset, data),
            Target::Index { port, byte } => {
                self.routes.read_index(port, byte, data);
                Ok(())
            }
            Target::Closed { bar } => {
                self.ignore_closed(bar);
                data.fill(0xff);
                Ok(())
            }
            Target::Nothing => {
                self.ignore();
                data.fill(0xff);
                Ok(())
            }
        }
    }

    fn region_write(&mut self, region: Region, offset: u64, data: &[u8]) -> Result<(), HostError> {
        let Region::Bar(bar) = region else {
            return self.host.region_write(region, offset, data);
        };
        match self.routes.target(bar, offset, data.len()) {
            Target::Registers { bar, offset } => self.write_registers(bar, offset, data),
            Target::Index { port, byte } => {
                self.routes.write_index(port, byte, data);
                Ok(())
            }
            Target::Closed { bar } => {
                self.ignore_closed(bar);
                Ok(())
            }
            Target::Nothing => {
                self.ignore();
                Ok(())
            }
        }
    }

    fn map(&mut self, bar: u8, area: Range<u64>, gpa: Gpa) -> Result<(), HostError> {
        let traps = |(trapped, pages): &(u8, Range<u64>)| {
            *trapped == bar && pages.start < area.end && area.start < pages.end
        };
        if self.trapped.iter().any(traps) {
            let reason = format!("BAR {bar} at {area:#x?} holds mediated registers or is closed");
            return Err(HostError(reason.into()));
        }
        self.host.map(bar, area, gpa)
    }

    fn unmap(&mut self, bar: u8, area: Range<u64>) -> Result<(), HostError> {
        self.host.unmap(bar, area)
    }

    fn enable_interrupts(&mut self, kind: InterruptKind, vectors: u16) -> Result<u16, HostError> {
        self.host.enable_interrupts(kind, vectors)
    }

    fn disable_interrupts(&mut self) -> Result<(), HostError> {
        self.host.disable_interrupts()
    }

    fn connect(&mut self, vector: u16, message: MsiMessage) -> Result<(), HostError> {
        self.host.connect(vector, message)
    }

    fn disconnect(&mut self, vector: u16) -> Result<(), HostError> {
        self.host.disconnect(vector)
    }

    fn restore_vectors(&mut self) -> Result<(), HostError> {
        self.host.restore_vectors()
    }

    fn pending(&mut self, vector: u16) -> bool {
        self.host.pending(vector)
    }

    /// Whether the device could be reset or not, nothing remains of what the guest wrote.
    fn reset(&mut self) -> Result<(), HostError> {
        self.forget();
        self.host.reset()
    }

    fn was_reset(&mut self) {
        self.forget();
        self.host.was_reset();
    }
}
