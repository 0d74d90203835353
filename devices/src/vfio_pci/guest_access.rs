// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's accesses to config space, register by register.

use pci_config::regs::{
    AF_CAPABILITIES_FLR, AF_CONTROL, AF_CONTROL_FLR, BAR_END, BAR0, COMMAND, COMMAND_BUS_MASTER,
    COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MEMORY, COMMAND_MWI, COMMAND_PARITY, COMMAND_SERR,
    EXP_DEVICE_CAPABILITIES, EXP_DEVICE_CAPABILITIES_FLR, EXP_DEVICE_CONTROL,
    EXP_DEVICE_CONTROL_FLR, MSIX_CONTROL, MSIX_ENABLE, MSIX_FUNCTION_MASK, PM_CONTROL,
    PM_NO_SOFT_RESET, PM_STATE, ROM,
};

use crate::pci::access::{DwordWrite, read_part};
use crate::pci::control_write;

use super::function::PassthroughFunction;
use super::host::{HostFunction, InterruptKind};

/// COMMAND bits that the guest decides on; all others read as 0.
const COMMAND_WRITABLE: u16 = COMMAND_IO
    | COMMAND_MEMORY
    | COMMAND_BUS_MASTER
    | COMMAND_MWI
    | COMMAND_PARITY
    | COMMAND_SERR
    | COMMAND_INTX_DISABLE;

/// Who answers for a dword of config space.
enum Owner {
    Command,
    Bar,
    /// Offset in the capability.
    Msi(u16),
    MsixControl,
    Power,
    DeviceControl,
    AdvancedFeatures,
    Map,
}

impl<H: HostFunction> PassthroughFunction<H> {
    fn owner(&self, offset: u16) -> Owner {
        let located = self.config.located;
        let is =
            |capability: Option<u16>, register| capability.map(|at| at + register) == Some(offset);
        match offset {
            COMMAND => Owner::Command,
            BAR0..BAR_END | ROM => Owner::Bar,
            _ if is(located.msix, 0) => Owner::MsixControl,
            _ if is(located.pm, PM_CONTROL) => Owner::Power,
            _ if is(located.express, EXP_DEVICE_CONTROL) => Owner::DeviceControl,
            _ if is(located.af, AF_CONTROL) => Owner::AdvancedFeatures,
            _ => match (located.msi, &self.msi) {
                (Some(at), Some(msi)) if (at..at + msi.length()).contains(&offset) => {
                    Owner::Msi(offset - at)
                }
                _ => Owner::Map,
            },
        }
    }

    pub(super) fn read_register(&mut self, offset: u16, data: &mut [u8]) {
        let dword = offset & !3;
        match self.owner(dword) {
            Owner::Bar => read_part(self.bars.read(dword).unwrap_or(0), offset, data),
            Owner::Msi(register) => {
                read_part(self.read_msi(dword, register), offset, data);
            }
            Owner::MsixControl => {
                let control = self
                    .msix_state()
                    .map_or(0, |msix| u32::from(msix.control()));
                let header = self.config.shadow(dword) & 0xffff;
                read_part(header | control << 16, offset, data);
            }
            _ => {
                if let Err(error) = self.config.read(&mut self.host, offset, data) {
                    data.fill(0xff);
                    self.reporter
                        .warn(format_args!("config space at {offset:#x}: {error}"));
                }
            }
        }
    }

    fn read_msi(&mut self, dword: u16, register: u16) -> u32 {
        let Some(msi) = &self.msi else {
            return 0;
        };
        let header = if register == 0 {
            self.config.shadow(dword) & 0xffff
        } else {
            0
        };
        let (interrupts, host) = (&self.interrupts, &mut self.host);
        let pending = || {
            let pending = |vector: &u16| {
                interrupts.kind() == Some(InterruptKind::Msi)
                    && interrupts.is_pending(*vector, host)
            };
            (0..32)
                .filter(pending)
                .fold(0, |bits, vector| bits | 1 << vector)
        };
        header | msi.read(register, pending)
    }

    pub(super) fn write_register(&mut self, write: DwordWrite) {
        match self.owner(write.offset) {
            Owner::Command => {
                let [low, high, ..] = write.merge(u32::from(self.command)).to_le_bytes();
                self.write_command(u16::from_le_bytes([low, high]));
            }
            Owner::Bar => self.write_bar(write),
            Owner::Msi(register) => {
                if let Some(msi) = &mut self.msi {
                    msi.write(DwordWrite {
                        offset: register,
                        ..write
                    });
                }
                self.settle_interrupts();
            }
            Owner::MsixControl => self.write_msix_control(write),
            Owner::Power => self.write_power(write),
            Owner::DeviceControl if self.asks_for_flr(write) => self.reset_device(),
            Owner::AdvancedFeatures if self.asks_for_af_flr(write) => self.reset_device(),
            Owner::DeviceControl => {
                // The device may have been reset without the monitor: guests write this register
                // when they restore what such a reset takes. The write keeps the bit as it is.
                self.keep_no_snoop_off();
                self.write_map(write);
            }
            Owner::AdvancedFeatures | Owner::Map => self.write_map(write),
        }
    }

    fn write_msix_control(&mut self, write: DwordWrite) {
        let Some(msix) = self.msix.as_mut().and_then(|msix| msix.state.as_mut()) else {
            return;
        };
        let before = msix.control();
        msix.set_control(control_write(msix, write));
        let set = msix.control() & !before;
        let is_restored = before & MSIX_ENABLE != 0 && set & MSIX_FUNCTION_MASK != 0;
        if is_restored && msix.is_enabled() && self.power_state == 0 {
            self.restore_msix();
        }
        self.settle_interrupts();
    }

    /// Where MSI-X is on and masked at once, the guest restores its registers, as Linux does after a
    /// reset of the device's own (drivers/pci/msi/msi.c `__pci_restore_msix_state`).
    fn restore_msix(&mut self) {
        let Some(at) = self.config.located.msix.map(|at| at + MSIX_CONTROL) else {
            return;
        };
        let mut control = [0; 2];
        let restored = self.host.config_read(at, &mut control).and_then(|()| {
            if u16::from_le_bytes(control) & MSIX_ENABLE != 0 {
                return self.host.restore_vectors();
            }
            // The host turns it on again with the vectors that are settled next.
            self.interrupts.turn_off(&mut self.host, &mut self.reporter);
            Ok(())
        });
        if let Err(error) = restored {
            self.reporter.warn(format_args!("MSI-X: {error}"));
        }
    }

    fn write_map(&mut self, write: DwordWrite) {
        let offset = write.start();
        if self.config.is_newly_refused(write) {
            self.reporter.warn(format_args!(
                "config space at {offset:#x}: the guest's write is dropped: it does not see this \
                 capability"
            ));
        }
        if let Err(error) = self.config.write(&mut self.host, write) {
            self.reporter
                .warn(format_args!("config space at {offset:#x}: {error}"));
        }
    }

    fn write_command(&mut self, command: u16) {
        self.command = command & COMMAND_WRITABLE;
        self.config.set_command(self.command);
        self.unmap_unwanted();
        self.write_host_command();
        self.map_wanted();
        self.warn_of_move();
        self.settle_interrupts();
    }

    fn write_bar(&mut self, write: DwordWrite) {
        self.bars.write(write);
        self.unmap_unwanted();
        self.map_wanted();
        self.warn_of_move();
    }

    fn write_power(&mut self, write: DwordWrite) {
        let Some(at) = self.config.located.pm.map(|at| at + PM_CONTROL) else {
            return;
        };
        let [low, ..] = write.merge(u32::from(self.power_state)).to_le_bytes();
        let (state, before) = (u16::from(low) & PM_STATE, self.power_state);
        if state == before {
            return;
        }
        if state != 0 {
            self.power_state = state;
            self.unmap_unwanted();
            if self.areas.any_mapped() {
                self.power_state = before;
                return;
            }
        }
        let mut control = state.to_le_bytes();
        if let Err(error) = self.host.config_write(at, &control) {
            self.power_state = before;
            self.map_wanted();
            self.reporter
                .warn(format_args!("power state D{state}: {error}"));
            return;
        }
        // The device may not have the state that the guest asked for.
        let mut actual = [0; 2];
        match self.host.config_read(at, &mut actual) {
            Ok(()) => control = actual,
            Err(error) => self
                .reporter
                .warn(format_args!("power state D{state}: {error}")),
        }
        self.power_state = u16::from_le_bytes(control) & PM_STATE;
        let soft_reset = u16::from_le_bytes(control) & PM_NO_SOFT_RESET == 0;
        if before == PM_STATE && self.power_state == 0 && soft_reset {
            // PCI Power Management 1.2, section 5.4.1: D3hot to D0 is a reset.
            self.host.was_reset();
            self.forget_guest_state();
            self.settle_interrupts();
            self.write_host_command();
        } else {
            self.map_wanted();
            self.settle_interrupts();
        }
    }

    fn asks_for_flr(&mut self, write: DwordWrite) -> bool {
        let Some(at) = self.config.located.express else {
            return false;
        };
        if !self.host.info().resettable {
            return false;
        }
        let mut capabilities = [0; 4];
        let read = self
            .host
            .config_read(at + EXP_DEVICE_CAPABILITIES, &mut capabilities);
        write.value & u32::from(EXP_DEVICE_CONTROL_FLR) != 0
            && read.is_ok()
            && u32::from_le_bytes(capabilities) & EXP_DEVICE_CAPABILITIES_FLR != 0
    }

    fn asks_for_af_flr(&self, write: DwordWrite) -> bool {
        let header = self
            .config
            .located
            .af
            .map_or(0, |at| self.config.shadow(at));
        write.value & AF_CONTROL_FLR != 0 && header & AF_CAPABILITIES_FLR != 0
    }
}
