// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Keeps the device in step with what the guest has programmed.

use std::ops::Range;

use pci_config::regs::{
    COMMAND, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MEMORY,
    EXP_DEVICE_CONTROL_FLR, EXP_DEVICE_CONTROL_NO_SNOOP, INTERRUPT, PM_CONTROL, PM_STATE,
};

use pci_config::InterruptKind;

use crate::pci::Space;

use super::function::PassthroughFunction;
use super::host::{HostError, HostFunction};
use super::interrupts::Wanted;

impl<H: HostFunction> PassthroughFunction<H> {
    /// Puts the device into the state that a guest finds after power-on. On failure, returns where.
    pub(super) fn quiet_device(&mut self) -> Result<(), (u16, HostError)> {
        let command = self.host.config_write(COMMAND, &[0; 2]);
        command.map_err(|error| (COMMAND, error))?;
        if let Some(at) = self.config.located.pm.map(|at| at + PM_CONTROL) {
            let mut control = [0; 2];
            let mut wake = self.host.config_read(at, &mut control);
            if wake.is_ok() && u16::from_le_bytes(control) & PM_STATE != 0 {
                wake = self.host.config_write(at, &[0; 2]);
            }
            wake.map_err(|error| (at, error))?;
        }
        self.forbid_no_snoop()
    }

    /// Clears No-Snoop Enable. KVM is not informed that the device may bypass the caches, so a
    /// guest would not see what such a write leaves in memory. Resets may set it.
    pub(super) fn forbid_no_snoop(&mut self) -> Result<(), (u16, HostError)> {
        let Some(at) = self.config.located.device_control else {
            return Ok(());
        };
        let mut bytes = [0; 2];
        self.host
            .config_read(at, &mut bytes)
            .map_err(|error| (at, error))?;
        let control = u16::from_le_bytes(bytes);
        if control & EXP_DEVICE_CONTROL_NO_SNOOP == 0 {
            return Ok(());
        }
        let cleared = control & !(EXP_DEVICE_CONTROL_NO_SNOOP | EXP_DEVICE_CONTROL_FLR);
        let written = self.host.config_write(at, &cleared.to_le_bytes());
        written.map_err(|error| (at, error))
    }

    /// As [`forbid_no_snoop`](Self::forbid_no_snoop); a failure is logged.
    pub(super) fn keep_no_snoop_off(&mut self) {
        if let Err((offset, error)) = self.forbid_no_snoop() {
            self.reporter
                .warn(format_args!("config space at {offset:#x}: {error}"));
        }
    }

    /// What COMMAND the device should have.
    pub(super) fn wanted_host_command(&self) -> u16 {
        let mut command = self.command;
        if !self.gate.is_open() {
            command &= !COMMAND_BUS_MASTER;
        }
        if self.areas.any_mapped() {
            // An unmap failed: without decode, the guest's next access would stop its vCPU.
            command |= COMMAND_MEMORY;
        }
        command
    }

    pub(super) fn write_host_command(&mut self) {
        let command = self.wanted_host_command();
        match self.host.config_write(COMMAND, &command.to_le_bytes()) {
            Ok(()) => self.host_command = command,
            Err(error) => self.reporter.fail("cannot write COMMAND", error),
        }
    }

    /// The gate may have moved since COMMAND was written.
    pub(super) fn follow_gate(&mut self) {
        if (self.host_command ^ self.wanted_host_command()) & COMMAND_BUS_MASTER != 0 {
            self.write_host_command();
        }
    }

    /// COMMAND bits that both the guest and the device have set, in a power state that decodes.
    pub(super) fn decodes(&self) -> u16 {
        let both = self.command & self.host_command;
        if self.power_state == 0 { both } else { 0 }
    }

    pub(super) fn unmap_unwanted(&mut self) {
        let memory = self.command & COMMAND_MEMORY != 0 && self.power_state == 0;
        let (bars, windows) = (&self.bars, &self.bus_windows);
        let place = |index| windows.to_gpa(bars.get(index).filter(|_| memory)?.place()?);
        self.areas
            .unmap_unless(place, &mut self.host, &mut self.reporter);
    }

    pub(super) fn map_wanted(&mut self) {
        let memory = self.decodes() & COMMAND_MEMORY != 0;
        let (bars, windows) = (&self.bars, &self.bus_windows);
        let place = |index| windows.to_gpa(bars.get(index).filter(|_| memory)?.place()?);
        self.areas.map_if(place, &mut self.host, &mut self.reporter);
    }

    pub(super) fn warn_of_move(&mut self) {
        if self.warned_of_move || self.command & COMMAND_MEMORY == 0 {
            return;
        }
        let moved = self.bars.iter().find(|(_, bar)| {
            bar.space() == Space::Memory && !bar.is_home() && bar.place().is_some()
        });
        if let Some((index, bar)) = moved {
            self.warned_of_move = true;
            self.reporter.warn(format_args!(
                "the guest moved BAR {index} from {:#x} to {:#x}; DMA of other devices reaches it \
                 only at the former address",
                bar.home(),
                bar.address()
            ));
        }
    }

    pub(super) fn wanted_interrupts(&self) -> Wanted {
        if let Some(on) = self.messages.iter().find(|one| one.is_enabled()) {
            // With one that stays disconnected a kind that grows is on in the device. The others are turned on as
            // they are unmasked, so that the host is asked for no more than the guest uses.
            let grows = self.host.info().interrupts[on.kind()].grows;
            let vectors = if grows { 1 } else { on.vectors() };
            return Some((on.kind(), vectors));
        }
        let [_, pin, ..] = self.config.shadow(INTERRUPT).to_le_bytes();
        let in_use = COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER;
        // INTx Disable itself is passed to the device, which is quicker than a change here.
        let is_on = self.interrupts.kind() == Some(InterruptKind::Intx);
        let allowed = is_on || self.command & COMMAND_INTX_DISABLE == 0;
        (pin != 0 && allowed && self.command & in_use != 0).then_some((InterruptKind::Intx, 1))
    }

    pub(super) fn settle_interrupts(&mut self) {
        self.settle_vectors(0..u16::MAX);
    }

    /// Outside D0 nothing changes: the host would write to the MSI-X table, which does not answer.
    pub(super) fn settle_vectors(&mut self, vectors: Range<u16>) {
        if self.power_state != 0 {
            return;
        }
        let wanted = self.wanted_interrupts();
        let on = wanted.and_then(|(kind, _)| self.messages.iter().find(|one| one.kind() == kind));
        let message = |vector| on?.message(vector);
        let (host, reporter) = (&mut self.host, &mut self.reporter);
        if self.interrupts.settle_kind(wanted, host, reporter) {
            self.interrupts
                .settle_vectors(vectors, message, host, reporter);
        }
    }

    /// Resets the device, and with it what the guest has programmed.
    pub(super) fn reset_device(&mut self) {
        self.forget_guest_state();
        // To D0 first, on the way to which VFIO restores the COMMAND that the device had on its way
        // to D3hot; then COMMAND, which a reset may bring back as it was.
        let woken = self.wake();
        self.interrupts.turn_off(&mut self.host, &mut self.reporter);
        if self.areas.any_mapped() {
            return; // Reported; a reset would stop a vCPU that uses the mapping.
        }
        self.write_host_command();
        match self.host.reset() {
            Ok(()) => self.power_state = 0,
            Err(error) => {
                self.reporter.warn(format_args!("reset: {error}"));
                self.read_power_state();
            }
        }
        self.write_host_command();
        let quiet = self.confirm_bus_master().and(woken);
        if let Err((offset, error)) = quiet.and_then(|()| self.forbid_no_snoop()) {
            self.reporter
                .warn(format_args!("config space at {offset:#x}: {error}"));
        }
    }

    /// Puts the device into D0 if the guest has it in another power state.
    fn wake(&mut self) -> Result<(), (u16, HostError)> {
        let control = self.config.located.pm.map(|at| at + PM_CONTROL);
        match control.filter(|_| self.power_state != 0) {
            Some(at) => self.host.config_write(at, &[0; 2]).map_err(|e| (at, e)),
            None => Ok(()),
        }
    }

    /// Learns in which power state the device is; unchanged if it does not report it.
    fn read_power_state(&mut self) {
        let Some(at) = self.config.located.pm.map(|at| at + PM_CONTROL) else {
            return;
        };
        let mut control = [0; 2];
        match self.host.config_read(at, &mut control) {
            Ok(()) => self.power_state = u16::from_le_bytes(control) & PM_STATE,
            Err(error) => self
                .reporter
                .warn(format_args!("config space at {at:#x}: {error}")),
        }
    }

    /// Reads back whether the device masters the bus only if it is to.
    fn confirm_bus_master(&mut self) -> Result<(), (u16, HostError)> {
        let mut bytes = [0; 2];
        let read = self.host.config_read(COMMAND, &mut bytes);
        read.map_err(|error| (COMMAND, error))?;
        let unwanted = u16::from_le_bytes(bytes) & !self.wanted_host_command();
        if unwanted & COMMAND_BUS_MASTER != 0 {
            let error = "its bus mastering cannot be disabled";
            self.reporter.fail("reset", HostError(error.into()));
        }
        Ok(())
    }

    /// All registers back to power-on, all areas unmapped.
    pub(super) fn forget_guest_state(&mut self) {
        self.command = 0;
        self.unmap_unwanted();
        self.bars.reset();
        self.config.reset();
        for capability in &mut self.messages {
            capability.reset();
        }
        self.interrupts.forget_refusal();
        self.warned_of_move = false;
    }
}
