// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Config space of an emulated function: a type 0 header with writable masks.

use pci_config::regs::{
    CACHE_LINE, CAPABILITIES, COMMAND, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_IO,
    COMMAND_MEMORY, CONVENTIONAL_CONFIG_SIZE, HEADER_END, INTERRUPT, STATUS_CAPABILITIES,
    SUBSYSTEM, upper_half,
};
use thiserror::Error;

use super::access::{DwordWrite, read_part};
use super::bar::{Bar, BarError, Bars};
use super::function::{Space, Windows};
use super::intx::Pin;

/// The identity of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Base class, sub-class and programming interface, as `0xbbsspp`.
    pub class: u32,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// The interrupt pin that the function drives.
    pub pin: Option<Pin>,
}

/// A capability that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CapabilityError {
    /// Body and mask differ in length.
    #[error("capability {id:#04x}: {body} bytes of content, {writable} bytes of write mask")]
    Mask {
        /// Capability ID.
        id: u8,
        /// Bytes of content.
        body: usize,
        /// Bytes of mask.
        writable: usize,
    },
    /// No room in the 192 bytes behind the header.
    #[error("capability {id:#04x} of {length} bytes does not fit in config space")]
    Room {
        /// Capability ID.
        id: u8,
        /// Bytes with its header.
        length: usize,
    },
}

/// Config space of an emulated function, 256 bytes.
///
/// COMMAND, BARs and the interrupt line behave as the specification has them; everything else is
/// read-only unless a capability's mask makes it writable.
#[derive(Clone, Debug)]
pub struct EmulatedConfig {
    registers: Vec<u32>,
    initial: Vec<u32>,
    writable: Vec<u32>,
    bars: Bars,
    /// Offset of the last capability in the list.
    last_capability: Option<u16>,
    /// First free byte.
    free: u16,
}

impl EmulatedConfig {
    /// The config space of a function without BARs and capabilities.
    #[must_use]
    pub fn new(identity: &Identity) -> Self {
        let dwords = usize::from(CONVENTIONAL_CONFIG_SIZE / 4);
        let mut registers = vec![0; dwords];
        let pair = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        registers[0] = pair(identity.vendor, identity.device);
        registers[2] = u32::from(identity.revision) | identity.class << 8;
        registers[index(SUBSYSTEM)] = pair(identity.subsystem_vendor, identity.subsystem);
        registers[index(INTERRUPT)] = identity.pin.map_or(0, |pin| u32::from(pin.register()) << 8);
        let mut writable = vec![0; dwords];
        let command = COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
        writable[index(COMMAND)] = u32::from(command);
        writable[index(CACHE_LINE)] = 0xff;
        writable[index(INTERRUPT)] = 0xff;
        Self {
            initial: registers.clone(),
            registers,
            writable,
            bars: Bars::default(),
            last_capability: None,
            free: HEADER_END,
        }
    }

    /// Gives the function BAR `index`.
    ///
    /// # Errors
    ///
    /// As [`Bars::insert`].
    pub fn add_bar(&mut self, index: u8, bar: Bar) -> Result<(), BarError> {
        self.bars.insert(index, bar)
    }

    /// Appends a capability and returns its offset. `body` is what follows the two header bytes;
    /// of it, the guest may change the bits in `writable`.
    ///
    /// # Errors
    ///
    /// If the two differ in length or there is no room.
    pub fn add_capability(
        &mut self,
        id: u8,
        body: &[u8],
        writable: &[u8],
    ) -> Result<u16, CapabilityError> {
        let length = body.len() + 2;
        if body.len() != writable.len() {
            let (body, writable) = (body.len(), writable.len());
            return Err(CapabilityError::Mask { id, body, writable });
        }
        let start = self.free;
        let end = u16::try_from(length.next_multiple_of(4))
            .ok()
            .and_then(|length| start.checked_add(length))
            .filter(|end| *end <= CONVENTIONAL_CONFIG_SIZE)
            .ok_or(CapabilityError::Room { id, length })?;
        for (at, (value, mask)) in (start + 2..).zip(body.iter().zip(writable)) {
            set_byte(&mut self.registers, at, *value);
            set_byte(&mut self.writable, at, *mask);
        }
        set_byte(&mut self.registers, start, id);
        let link = self.last_capability.map_or(CAPABILITIES, |last| last + 1);
        let [offset, _] = start.to_le_bytes();
        set_byte(&mut self.registers, link, offset);
        self.registers[index(COMMAND)] |= upper_half(STATUS_CAPABILITIES);
        self.initial.clone_from(&self.registers);
        self.last_capability = Some(start);
        self.free = end;
        Ok(start)
    }

    /// Reads registers; shapes as [`PciFunction::config_read`](super::PciFunction::config_read).
    /// There is no extended config space: past 256 bytes everything reads as all-ones.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        let at = offset & !3;
        let dword = self
            .bars
            .read(at)
            .or_else(|| self.registers.get(index(at)).copied());
        match dword {
            Some(dword) => read_part(dword, offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes registers; shapes as [`PciFunction::config_write`](super::PciFunction::config_write).
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        let Some(write) = DwordWrite::new(offset, data) else {
            return;
        };
        if self.bars.write(write) {
            return;
        }
        let at = index(write.offset);
        if let Some(register) = self.registers.get_mut(at) {
            let mask = self.writable[at];
            *register = *register & !mask | write.merge(*register) & mask;
        }
    }

    /// The COMMAND register.
    #[must_use]
    pub fn command(&self) -> u16 {
        let [low, high, ..] = self.registers[index(COMMAND)].to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// Whether the guest lets the function master the bus.
    #[must_use]
    pub fn is_bus_master(&self) -> bool {
        self.command() & COMMAND_BUS_MASTER != 0
    }

    /// The BARs that COMMAND lets the function decode.
    #[must_use]
    pub fn windows(&self) -> Windows {
        let mut windows = Windows::default();
        for (number, bar) in self.bars.iter() {
            let enable = match bar.space() {
                Space::Memory => COMMAND_MEMORY,
                Space::Io => COMMAND_IO,
            };
            if let Some(window) = bar.window(number).filter(|_| self.command() & enable != 0) {
                windows.push(window);
            }
        }
        windows
    }

    /// The base address registers.
    #[must_use]
    pub fn bars(&self) -> &Bars {
        &self.bars
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        self.registers.clone_from(&self.initial);
        self.bars.reset();
    }
}

fn index(offset: u16) -> usize {
    usize::from(offset / 4)
}

fn set_byte(registers: &mut [u32], offset: u16, value: u8) {
    let register = &mut registers[index(offset)];
    let mut bytes = register.to_le_bytes();
    bytes[usize::from(offset % 4)] = value;
    *register = u32::from_le_bytes(bytes);
}

#[cfg(test)]
mod tests {
    use pci_config::BarKind;

    use super::*;

    fn read(config: &EmulatedConfig, offset: u16) -> u32 {
        let mut data = [0; 4];
        config.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn config() -> EmulatedConfig {
        EmulatedConfig::new(&Identity {
            vendor: 0x1234,
            device: 0x11e8,
            revision: 0x10,
            class: 0x00ff00,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            pin: Some(Pin::A),
        })
    }

    #[test]
    fn the_header_has_the_identity() {
        let config = config();
        assert_eq!(read(&config, 0), 0x11e8_1234);
        assert_eq!(read(&config, 4), 0);
        assert_eq!(read(&config, 8), 0x00ff_0010);
        assert_eq!(read(&config, 0x2c), 0x1100_1af4);
        assert_eq!(read(&config, 0x3c), 0x0000_0100);
        assert_eq!(read(&config, 0x100), u32::MAX);
        assert_eq!(read(&config, 0xffc), u32::MAX);
    }

    #[test]
    fn only_writable_bits_change_until_reset() {
        let mut config = config();
        for offset in (0..0x100).step_by(4) {
            config.write(offset, &[0xff; 4]);
        }
        assert_eq!(read(&config, 0), 0x11e8_1234);
        assert_eq!(config.command(), 0x0407);
        assert!(config.is_bus_master());
        assert_eq!(read(&config, 0x0c), 0xff);
        assert_eq!(read(&config, 0x3c), 0x01ff);
        config.reset();
        assert_eq!(config.command(), 0);
    }

    #[test]
    fn capabilities_form_a_list() {
        let mut config = config();
        assert_eq!(config.add_capability(0x09, &[7; 5], &[0; 5]), Ok(0x40));
        assert_eq!(config.add_capability(0x05, &[0x80, 0], &[1, 0]), Ok(0x48));
        assert_eq!(read(&config, 4) >> 20, 1);
        assert_eq!(read(&config, 0x34), 0x40);
        assert_eq!(read(&config, 0x40), 0x0707_4809);
        assert_eq!(read(&config, 0x48), 0x0080_0005);
        config.write(0x48, &[0xff; 4]);
        assert_eq!(read(&config, 0x48), 0x0081_0005);
        config.reset();
        assert_eq!(read(&config, 0x48), 0x0080_0005);
        assert!(config.add_capability(1, &[0; 2], &[0; 3]).is_err());
        assert!(config.add_capability(1, &[0; 180], &[0; 180]).is_err());
        assert!(config.add_capability(1, &[0; 70000], &[0; 70000]).is_err());
        assert_eq!(config.add_capability(1, &[0; 178], &[0; 178]), Ok(0x4c));
    }

    #[test]
    fn bars_are_decoded_by_command() {
        let mut config = config();
        let memory = BarKind::Memory32 {
            prefetchable: false,
        };
        config
            .add_bar(0, Bar::new(memory, 0x1000, 0xfe00_0000).unwrap())
            .unwrap();
        config
            .add_bar(1, Bar::new(BarKind::Io, 0x20, 0xc000).unwrap())
            .unwrap();
        for (command, memory, io) in [(0, false, false), (1, false, true), (2, true, false)] {
            config.write(4, &[command, 0]);
            let windows = config.windows();
            assert_eq!(windows.find(Space::Memory, 0xfe00_0ffc).is_some(), memory);
            assert_eq!(windows.find(Space::Io, 0xc01c).is_some(), io);
            assert_eq!(windows.find(Space::Io, 0xfe00_0000), None);
        }
    }
}
