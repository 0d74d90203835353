// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's accesses to config space, register by register.

use pci_config::regs::{
    AF_CAPABILITIES_FLR, AF_CONTROL, AF_CONTROL_FLR, BAR_END, BAR0, COMMAND, COMMAND_BUS_MASTER,
    COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MEMORY, COMMAND_MWI, COMMAND_PARITY, COMMAND_SERR,
    EXP_DEVICE_CAPABILITIES, EXP_DEVICE_CAPABILITIES_FLR, EXP_DEVICE_CONTROL,
    EXP_DEVICE_CONTROL_FLR, MSI_CONTROL, PM_CONTROL, PM_NO_SOFT_RESET, PM_STATE, ROM,
};

use pci_config::InterruptKind;

use crate::pci::access::{DwordWrite, read_part};

use super::config_space::{ConfigSpace, Dropped};
use super::function::PassthroughFunction;
use super::host::HostFunction;
use super::messages::Written;

/// COMMAND bits that the guest decides on; all others read as 0.
const COMMAND_WRITABLE: u16 = COMMAND_IO
    | COMMAND_MEMORY
    | COMMAND_BUS_MASTER
    | COMMAND_MWI
    | COMMAND_PARITY
    | COMMAND_SERR
    | COMMAND_INTX_DISABLE;

/// The owner of a dword of config space.
enum Owner {
    Command,
    Bar,
    /// The number of the capability among those for messages, and the offset in it.
    Messages(usize, u16),
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
            _ if is(located.pm, PM_CONTROL) => Owner::Power,
            _ if is(located.express, EXP_DEVICE_CONTROL) => Owner::DeviceControl,
            _ if is(located.af, AF_CONTROL) => Owner::AdvancedFeatures,
            _ => self.messages_at(offset).unwrap_or(Owner::Map),
        }
    }

    /// The capability for messages whose register is at `offset`.
    fn messages_at(&self, offset: u16) -> Option<Owner> {
        let located = self.config.located.messages;
        self.messages.iter().enumerate().find_map(|(index, one)| {
            let register = offset.checked_sub(located[one.kind()]?)?;
            (register < one.length()).then_some(Owner::Messages(index, register))
        })
    }

    pub(super) fn read_register(&mut self, offset: u16, data: &mut [u8]) {
        let dword = offset & !3;
        match self.owner(dword) {
            Owner::Bar => read_part(self.bars.read(dword).unwrap_or(0), offset, data),
            Owner::Messages(index, register) => {
                let value = self.read_messages(index, dword, register);
                read_part(value, offset, data);
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

    fn read_messages(&mut self, index: usize, dword: u16, register: u16) -> u32 {
        let capability = &self.messages[index];
        let header = match register {
            0 => self.config.shadow(dword) & 0xffff,
            _ => 0,
        };
        let (interrupts, host) = (&self.interrupts, &mut self.host);
        let is_on = interrupts.kind() == Some(capability.kind());
        let mut pending = |vector| is_on && interrupts.is_pending(vector, host);
        header | capability.read(register, &mut pending)
    }

    pub(super) fn write_register(&mut self, write: DwordWrite) {
        match self.owner(write.offset) {
            Owner::Command => {
                let [low, high, ..] = write.merge(u32::from(self.command)).to_le_bytes();
                self.write_command(u16::from_le_bytes([low, high]));
            }
            Owner::Bar => self.write_bar(write),
            Owner::Messages(index, register) => self.write_messages(
                index,
                DwordWrite {
                    offset: register,
                    ..write
                },
            ),
            Owner::Power => self.write_power(write),
            Owner::DeviceControl if self.asks_for_flr(write) => self.reset_device(),
            Owner::AdvancedFeatures if self.asks_for_af_flr(write) => self.reset_device(),
            Owner::DeviceControl => {
                // The device may have been reset without the monitor: guests write this register
                // when they restore what such a reset takes. The write keeps the bit.
                self.keep_no_snoop_off();
                self.write_map(write);
            }
            Owner::AdvancedFeatures | Owner::Map => self.write_map(write),
        }
    }

    fn write_messages(&mut self, index: usize, write: DwordWrite) {
        let capability = &mut self.messages[index];
        let kind = capability.kind();
        if let Written::Restored { enable } = capability.write(write)
            && self.power_state == 0
        {
            self.restore_messages(kind, enable);
        }
        self.settle_interrupts();
    }

    /// Restores what a reset of the device's own has taken; `enable` is the bit of Message Control that shows it.
    fn restore_messages(&mut self, kind: InterruptKind, enable: u16) {
        let located = self.config.located.messages[kind];
        let Some(at) = located.map(|at| at + MSI_CONTROL) else {
            return;
        };
        let mut control = [0; 2];
        let restored = self.host.config_read(at, &mut control).and_then(|()| {
            if u16::from_le_bytes(control) & enable != 0 {
                return self.host.restore_vectors();
            }
            // The host turns it on again with the vectors that are settled next.
            self.interrupts.turn_off(&mut self.host, &mut self.reporter);
            Ok(())
        });
        if let Err(error) = restored {
            self.reporter.warn(format_args!("{kind}: {error}"));
        }
    }

    fn write_map(&mut self, write: DwordWrite) {
        let offset = write.start();
        let (config, host) = (&mut self.config, &mut self.host);
        // The host is asked for what the guest reads there only for the log.
        let shown = |config: &ConfigSpace| {
            let is_logged = log::log_enabled!(log::Level::Info);
            is_logged.then(|| config.shown(host, write)).flatten()
        };
        match config.newly_dropped(write, shown) {
            Some(Dropped::Hidden) => self.reporter.warn(format_args!(
                "config space at {offset:#x}: the guest's write to a hidden capability is dropped"
            )),
            Some(Dropped::ReadOnly(bits)) => log::info!(
                "{}: config space at {:#x}: the guest's write does not change bits {bits:#x}, \
                 which are read-only for the guest",
                self.host.info().name,
                write.offset
            ),
            None => {}
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
