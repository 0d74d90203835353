// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which bits of config space the guest reads from the device, which from a shadow, and which of
//! its writes go where.

use pci_config::regs::{
    BAR_END, BAR0, CACHE_LINE, CAPABILITIES, CARDBUS_CIS, COMMAND, HEADER_END, INTERRUPT, ROM,
    STATUS_CAPABILITIES, upper_half,
};

use pci_config::{InterruptKind, PerKind};

use crate::pci::access::{DwordWrite, low_bytes, read_part};

use super::host::{HostError, HostFunction};

mod capabilities;

/// Interrupt Pin, in the dword of Interrupt Line: INTA#.
const INTERRUPT_PIN_A: u32 = 1 << 8;

/// Where the capabilities that the monitor takes part in are, as config offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Located {
    pub pm: Option<u16>,
    /// Of each kind of interrupt.
    pub messages: PerKind<Option<u16>>,
    pub express: Option<u16>,
    pub af: Option<u16>,
    /// Device Control of PCI Express, whether or not the guest sees the capability.
    pub device_control: Option<u16>,
}

/// What the host can serve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub interrupts: PerKind<bool>,
    /// A reset of the function alone.
    pub function_reset: bool,
}

/// What of a write does not reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// All that is in a capability which the guest does not see.
    Hidden,
    /// These bits of the dword, which the guest only reads.
    ReadOnly(u32),
}

/// The map of config space: for each dword, the shadow and three masks.
#[derive(Clone, Debug)]
pub(super) struct ConfigSpace {
    shadow: Vec<u32>,
    initial: Vec<u32>,
    /// Bits that the guest reads from the device; the others come from the shadow.
    read_host: Vec<u32>,
    /// Bits whose writes go to the device.
    write_host: Vec<u32>,
    /// Bits whose writes change the shadow.
    write_shadow: Vec<u32>,
    /// Bytes that a capability or the header has claimed, one bit each in dword positions.
    claimed: Vec<u32>,
    /// Bytes of capabilities that the guest does not see, until it has been logged that a write to
    /// them was dropped.
    refused: Vec<u32>,
    /// Other bits that the guest cannot write, until that has been logged.
    read_only: Vec<u32>,
    pub located: Located,
}

impl ConfigSpace {
    /// The map for a device whose config space reads as `config`, with `interrupt_line` in the
    /// register of that name.
    pub(super) fn new(config: &[u32], offer: Offer, interrupt_line: u8) -> Self {
        let zeros = vec![0; config.len()];
        let mut space = Self {
            shadow: zeros.clone(),
            initial: Vec::new(),
            read_host: zeros.clone(),
            write_host: zeros.clone(),
            write_shadow: zeros.clone(),
            claimed: zeros.clone(),
            refused: zeros,
            read_only: Vec::new(),
            located: Located::default(),
        };
        space.lay_out_header(config, offer, interrupt_line);
        space.lay_out_standard(config, offer);
        space.lay_out_extended(config);
        space.pass_gaps();
        space.read_only = space.unwritable();
        space.initial.clone_from(&space.shadow);
        space
    }

    /// Bytes of config space.
    pub(super) fn size(&self) -> u16 {
        u16::try_from(4 * self.shadow.len()).unwrap_or(u16::MAX)
    }

    /// The dword of the shadow at `offset`.
    pub(super) fn shadow(&self, offset: u16) -> u32 {
        self.shadow[index(offset)]
    }

    /// Reads `data.len()` bytes: from the device where the map has it, else from the shadow.
    pub(super) fn read<H: HostFunction>(
        &self,
        host: &mut H,
        offset: u16,
        data: &mut [u8],
    ) -> Result<(), HostError> {
        let at = index(offset);
        let mut pass = [0; 4];
        let pass = &mut pass[..data.len()];
        read_part(self.read_host[at], offset, pass);
        read_part(self.shadow[at], offset, data);
        if pass.iter().all(|mask| *mask == 0) {
            return Ok(());
        }
        let mut live = [0; 4];
        let live = &mut live[..data.len()];
        host.config_read(offset, live)?;
        for ((byte, live), mask) in data.iter_mut().zip(live).zip(pass) {
            *byte = *byte & !*mask | *live & *mask;
        }
        Ok(())
    }

    /// Writes what the map lets through to the shadow and to the device.
    pub(super) fn write<H: HostFunction>(
        &mut self,
        host: &mut H,
        write: DwordWrite,
    ) -> Result<(), HostError> {
        let at = index(write.offset);
        let shadowed = write.mask & self.write_shadow[at];
        self.shadow[at] = self.shadow[at] & !shadowed | write.value & shadowed;
        let shift = 8 * u32::from(write.start() - write.offset);
        MaskedWrite {
            offset: write.start(),
            width: write.width,
            value: write.value >> shift,
            mask: (write.mask & self.write_host[at]) >> shift,
        }
        .perform(host)
    }

    /// What of `write` is dropped, of each dword once. The bits of `shown`, what the guest reads
    /// there, that the write leaves as they are do not count; without `shown` none does.
    pub(super) fn newly_dropped(
        &mut self,
        write: DwordWrite,
        shown: impl FnOnce(&Self) -> Option<u32>,
    ) -> Option<Dropped> {
        let at = index(write.offset);
        if self.refused[at] & write.mask != 0 {
            self.refused[at] = 0;
            return Some(Dropped::Hidden);
        }
        let read_only = self.read_only[at] & write.mask;
        if read_only == 0 {
            return None;
        }
        let changed = (shown(self)? ^ write.value) & read_only;
        if changed == 0 {
            return None;
        }
        self.read_only[at] = 0;
        Some(Dropped::ReadOnly(changed))
    }

    /// What the guest reads where it writes `write`, in its place in the dword.
    pub(super) fn shown<H: HostFunction>(&self, host: &mut H, write: DwordWrite) -> Option<u32> {
        let mut bytes = [0; 4];
        let place = usize::from(write.start() - write.offset);
        let data = &mut bytes[place..place + usize::from(write.width)];
        self.read(host, write.start(), data).ok()?;
        Some(u32::from_le_bytes(bytes))
    }

    /// Sets what the guest reads as COMMAND.
    pub(super) fn set_command(&mut self, command: u16) {
        let dword = &mut self.shadow[index(COMMAND)];
        *dword = *dword & 0xffff_0000 | u32::from(command);
    }

    /// Puts the guest's own registers back to their first values.
    pub(super) fn reset(&mut self) {
        self.shadow.clone_from(&self.initial);
    }

    fn lay_out_header(&mut self, config: &[u32], offer: Offer, interrupt_line: u8) {
        for offset in (0..HEADER_END).step_by(4) {
            self.claimed[index(offset)] = u32::MAX;
            self.shadow[index(offset)] = match offset {
                // COMMAND, BARs and ROM have state of their own.
                COMMAND | BAR0..BAR_END | CARDBUS_CIS | ROM | CAPABILITIES | 0x38 => 0,
                // BIST would reset the device behind the monitor's back.
                CACHE_LINE => config[index(offset)] & 0x00ff_ffff,
                INTERRUPT => {
                    let [_, pin, _, _] = config[index(offset)].to_le_bytes();
                    // INTA#, whatever the device's place on the host's bus made of it.
                    let pin = if offer.interrupts[InterruptKind::Intx] && pin != 0 {
                        INTERRUPT_PIN_A
                    } else {
                        0
                    };
                    config[index(offset)] & 0xffff_0000 | pin | u32::from(interrupt_line)
                }
                _ => config[index(offset)],
            };
        }
        self.read_host[index(COMMAND)] = 0xffff_0000 & !upper_half(STATUS_CAPABILITIES);
        self.read_host[index(CACHE_LINE)] = 0x0000_ffff;
        self.write_host[index(CACHE_LINE)] = 0x0000_ffff;
        self.write_shadow[index(INTERRUPT)] = 0xff;
    }

    /// Bytes that nothing claimed are the device's own registers, which only its driver defines.
    fn pass_gaps(&mut self) {
        let masks = self.read_host.iter_mut().zip(&mut self.write_host);
        for ((read, write), claimed) in masks.zip(&self.claimed) {
            *read |= !claimed;
            *write |= !claimed;
        }
    }

    /// The bits that belong to what the guest sees and that it cannot write, in each dword.
    fn unwritable(&self) -> Vec<u32> {
        let written = self.write_host.iter().zip(&self.write_shadow);
        let claimed = self.claimed.iter().zip(&self.refused);
        claimed
            .zip(written)
            .map(|((claimed, refused), (host, shadow))| claimed & !(refused | host | shadow))
            .collect()
    }

    fn shadow_dwords(&mut self, config: &[u32], start: u16, end: u16) {
        for offset in (start..end).step_by(4) {
            self.shadow[index(offset)] = config[index(offset)];
        }
    }

    /// Passes the unclaimed bytes in `start..end`.
    fn pass(&mut self, start: u16, end: u16, writes: bool) {
        for offset in start..end {
            let byte = byte_mask(offset) & !self.claimed[index(offset)];
            self.read_host[index(offset)] |= byte;
            if writes {
                self.write_host[index(offset)] |= byte;
            }
        }
    }

    fn claim(&mut self, start: u16, length: u16) {
        for offset in start..start + length {
            self.claimed[index(offset)] |= byte_mask(offset);
        }
    }

    fn is_free(&self, start: u16, end: u16) -> bool {
        (start..end).all(|offset| self.claimed[index(offset)] & byte_mask(offset) == 0)
    }
}

fn index(offset: u16) -> usize {
    usize::from(offset / 4)
}

fn byte_mask(offset: u16) -> u32 {
    0xff << (8 * (offset % 4))
}

/// A write of some bits of a register of the device.
#[derive(Clone, Copy, Debug)]
struct MaskedWrite {
    offset: u16,
    /// Bytes of the register.
    width: u16,
    value: u32,
    /// The bits to write.
    mask: u32,
}

impl MaskedWrite {
    /// Writes, in as few accesses as leave bytes without bits to write alone.
    fn perform<H: HostFunction>(self, host: &mut H) -> Result<(), HostError> {
        let Self {
            offset,
            width,
            value,
            mask,
        } = self;
        if mask == 0 {
            return Ok(());
        }
        let whole = (0..width).all(|byte| mask >> (8 * byte) & 0xff != 0);
        if !whole {
            let [low, high] = self.halves();
            low.perform(host)?;
            return high.perform(host);
        }
        let mut bytes = [0; 4];
        if mask != low_bytes(width) {
            host.config_read(offset, &mut bytes[..width.into()])?;
        }
        let merged = u32::from_le_bytes(bytes) & !mask | value & mask;
        host.config_write(offset, &merged.to_le_bytes()[..width.into()])
    }

    fn halves(self) -> [Self; 2] {
        let width = self.width / 2;
        let low = Self {
            width,
            value: self.value & low_bytes(width),
            mask: self.mask & low_bytes(width),
            ..self
        };
        let high = Self {
            offset: self.offset + width,
            width,
            value: self.value >> (8 * width),
            mask: self.mask >> (8 * width),
        };
        [low, high]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_write_is_reported_once_for_each_register() {
        let mut config = vec![0; 1024];
        // SR-IOV, which the guest does not see, and a serial number, which it does.
        config[index(0x100)] = 0x1401_0010;
        config[index(0x140)] = 0x0001_0003;
        let offer = Offer {
            interrupts: PerKind::from_fn(|_| true),
            function_reset: true,
        };
        let mut space = ConfigSpace::new(&config, offer, 10);
        let mut dropped = |offset, shown| {
            let write = DwordWrite::new(offset, &[1; 2]).unwrap();
            space.newly_dropped(write, |_| shown)
        };
        assert_eq!(dropped(0x108, None), Some(Dropped::Hidden));
        assert_eq!(dropped(0x108, Some(0)), None, "reported");
        assert_eq!(dropped(0x10a, Some(0)), None, "the same register");
        assert_eq!(dropped(0x10c, Some(0)), Some(Dropped::Hidden));
        assert_eq!(dropped(0x90, Some(0)), None, "a gap");
        assert_eq!(dropped(0x144, None), None, "unreadable");
        assert_eq!(dropped(0x144, Some(0x0101)), None, "unchanged");
        let changed = Some(Dropped::ReadOnly(0x0001));
        assert_eq!(dropped(0x144, Some(0x0100)), changed);
        assert_eq!(dropped(0x146, Some(0)), None, "the same register");
        // Interrupt Line is the guest's, Interrupt Pin is not.
        let changed = Some(Dropped::ReadOnly(0x0100));
        assert_eq!(dropped(0x3c, Some(0)), changed);
    }
}
