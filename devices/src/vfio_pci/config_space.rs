//! Which bits of config space the guest reads from the device, which from a shadow, and which of
//! its writes go where.

use crate::pci::access::{DwordWrite, low_bytes, read_part};
use crate::pci::regs::{
    BAR_END, BAR0, CACHE_LINE, CAP_AF, CAP_EXPRESS, CAP_MSI, CAP_MSIX, CAP_PM, CAP_VENDOR,
    CAPABILITIES, COMMAND, CONVENTIONAL_CONFIG_SIZE, EXTENDED_CAPABILITIES, HEADER_END, INTERRUPT,
    ROM, STATUS_CAPABILITIES,
};
use crate::pci::{CapabilityHeader, Msi, extended_capabilities, standard_capabilities};

use super::host::{HostError, HostFunction};
use super::policy::{self, Access, Length, Rule};

/// Interrupt Pin, in the dword of Interrupt Line: INTA#.
const INTERRUPT_PIN_A: u32 = 1 << 8;
/// PCI Express Capabilities, upper half of the first dword: version and message number stay;
/// type and the slot bit change.
const EXPRESS_TYPE: u32 = 0xf << 20;
const EXPRESS_SLOT: u32 = 1 << 24;
const EXPRESS_VERSION: u32 = 0xf << 16;
const EXPRESS_INTEGRATED_ENDPOINT: u32 = 9 << 20;
const EXPRESS_VERSION_2: u32 = 2 << 16;
/// Bytes of the capability that endpoints with a link have, in version 1.
const EXPRESS_V1_LENGTH: u16 = 0x14;
/// The same since version 2.
const EXPRESS_V2_LENGTH: u16 = 0x34;

/// Where the capabilities that the monitor takes part in are, as config offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Located {
    pub pm: Option<u16>,
    pub msi: Option<u16>,
    pub msix: Option<u16>,
    pub express: Option<u16>,
    pub af: Option<u16>,
}

/// Which interrupt capabilities the host can serve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub msi: bool,
    pub msix: bool,
    pub intx: bool,
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
            claimed: zeros,
            located: Located::default(),
        };
        space.lay_out_header(config, offer, interrupt_line);
        space.lay_out_standard(config, offer);
        space.lay_out_extended(config);
        space.pass_gaps();
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

    /// Reads `data.len()` bytes: from the device where the map says so, else from the shadow.
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
        let mask = (write.mask & self.write_host[at]) >> shift;
        write_through(
            host,
            write.start(),
            write.value >> shift,
            (mask, write.width),
        )
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
                COMMAND | BAR0..BAR_END | ROM | CAPABILITIES | 0x38 => 0,
                // BIST would reset the device behind the monitor's back.
                CACHE_LINE => config[index(offset)] & 0x00ff_ffff,
                INTERRUPT => {
                    let [_, pin, _, _] = config[index(offset)].to_le_bytes();
                    // INTA#, whatever the device's place on the host's bus made of it.
                    let pin = if offer.intx && pin != 0 {
                        INTERRUPT_PIN_A
                    } else {
                        0
                    };
                    config[index(offset)] & 0xffff_0000 | pin | u32::from(interrupt_line)
                }
                _ => config[index(offset)],
            };
        }
        self.read_host[index(COMMAND)] = 0xffff_0000 & !STATUS_CAPABILITIES;
        self.read_host[index(CACHE_LINE)] = 0x0000_ffff;
        self.write_host[index(CACHE_LINE)] = 0x0000_ffff;
        self.write_shadow[index(INTERRUPT)] = 0xff;
    }

    fn lay_out_standard(&mut self, config: &[u32], offer: Offer) {
        let mut shown: Vec<CapabilityHeader> = Vec::new();
        let all = standard_capabilities(config);
        for capability in &all {
            self.claim(capability.offset, 2);
        }
        for (capability, rule) in known_bytes_first(&all, policy::standard) {
            let allowed = match u8::try_from(capability.id) {
                Ok(CAP_MSI) => offer.msi && self.located.msi.is_none(),
                Ok(CAP_MSIX) => offer.msix && self.located.msix.is_none(),
                Ok(CAP_VENDOR) => true,
                // The second of a kind would be a second way around the first.
                _ => !shown.iter().any(|other| other.id == capability.id),
            };
            if allowed && self.lay_out(config, capability, rule) {
                shown.push(capability);
            }
        }
        let listed: Vec<_> = all.into_iter().filter(|one| shown.contains(one)).collect();
        self.link_standard(&listed);
    }

    fn link_standard(&mut self, shown: &[CapabilityHeader]) {
        let offsets = shown.iter().map(|capability| u32::from(capability.offset));
        let mut next = offsets.clone().skip(1);
        for capability in shown {
            let pointer = next.next().unwrap_or(0);
            let header = &mut self.shadow[index(capability.offset)];
            *header = *header & 0xffff_0000 | u32::from(capability.id) | pointer << 8;
            self.read_host[index(capability.offset)] &= 0xffff_0000;
        }
        if let Some(first) = offsets.clone().next() {
            self.shadow[index(CAPABILITIES)] = first;
            self.shadow[index(COMMAND)] |= STATUS_CAPABILITIES;
        }
    }

    fn lay_out_extended(&mut self, config: &[u32]) {
        let mut shown: Vec<CapabilityHeader> = Vec::new();
        let all = extended_capabilities(config);
        for capability in &all {
            self.claim(capability.offset, 4);
        }
        for (capability, rule) in known_bytes_first(&all, policy::extended) {
            if self.lay_out(config, capability, rule) {
                shown.push(capability);
            }
        }
        let listed: Vec<_> = all.into_iter().filter(|one| shown.contains(one)).collect();
        self.link_extended(&listed);
    }

    fn link_extended(&mut self, shown: &[CapabilityHeader]) {
        let Some(anchor) = self.shadow.get(index(EXTENDED_CAPABILITIES)) else {
            return;
        };
        debug_assert_eq!(*anchor, 0);
        self.claim(EXTENDED_CAPABILITIES, 4);
        let mut next = shown.iter().map(|capability| u32::from(capability.offset));
        // The list starts at 0x100; a hidden first capability leaves an anchor with ID 0.
        if shown
            .first()
            .is_some_and(|first| first.offset == EXTENDED_CAPABILITIES)
        {
            next.next();
        } else if let Some(first) = next.clone().next() {
            self.shadow[index(EXTENDED_CAPABILITIES)] = first << 20;
            next.next();
        }
        for capability in shown {
            let pointer = next.next().unwrap_or(0);
            self.shadow[index(capability.offset)] =
                u32::from(capability.id) | u32::from(capability.version) << 16 | pointer << 20;
            self.read_host[index(capability.offset)] = 0;
            self.write_host[index(capability.offset)] = 0;
        }
    }

    /// Claims the capability's bytes and sets their masks; false if it stays hidden.
    fn lay_out(&mut self, config: &[u32], capability: CapabilityHeader, rule: &Rule) -> bool {
        let (name, word, reason) = (rule.name, rule.access.word(), rule.reason);
        log::debug!(
            "capability at {:#x}: {name}: {word}: {reason}",
            capability.offset
        );
        let start = capability.offset;
        let standard = start < CONVENTIONAL_CONFIG_SIZE;
        let end_of_space = if standard {
            CONVENTIONAL_CONFIG_SIZE
        } else {
            self.size()
        };
        let length = length(config, start, rule);
        let whole = length <= end_of_space - start;
        let end = start + length.min(end_of_space - start);
        let header = if standard { 2 } else { 4 };
        match rule.access {
            Access::Hidden => return false,
            Access::Emulated => {
                if !whole || !self.is_free(start + header, end) {
                    return false;
                }
                self.shadow_dwords(config, start, end);
            }
            Access::ReadOnly => self.pass(start + header, end, false),
            Access::Raw => self.pass(start + header, end, true),
            Access::Registers(registers) => {
                if !whole || !self.is_free(start + header, end) {
                    return false;
                }
                for register in registers {
                    if register.offset < length {
                        let at = index(start + register.offset);
                        self.read_host[at] = register.read;
                        self.write_host[at] = register.write;
                    }
                }
            }
        }
        self.claim(start, end - start);
        self.locate(config, capability);
        true
    }

    fn locate(&mut self, config: &[u32], capability: CapabilityHeader) {
        let start = capability.offset;
        if start >= CONVENTIONAL_CONFIG_SIZE {
            return;
        }
        let place = match u8::try_from(capability.id) {
            Ok(CAP_PM) => &mut self.located.pm,
            Ok(CAP_MSI) => &mut self.located.msi,
            Ok(CAP_MSIX) => &mut self.located.msix,
            Ok(CAP_EXPRESS) => {
                self.shadow[index(start)] = integrated_endpoint(config[index(start)]);
                &mut self.located.express
            }
            Ok(CAP_AF) => {
                self.shadow[index(start)] = config[index(start)] & 0xffff_0000;
                &mut self.located.af
            }
            _ => return,
        };
        *place = Some(start);
    }

    /// Bytes that nobody claimed are the device's own registers: drivers may read them, but
    /// VFIO would pass writes on unchecked.
    fn pass_gaps(&mut self) {
        for (mask, claimed) in self.read_host.iter_mut().zip(&self.claimed) {
            *mask |= !claimed;
        }
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

/// The capabilities that have a rule: first those whose bytes the rule knows, so that a vendor's
/// capability with a wrong length cannot take their registers.
fn known_bytes_first(
    all: &[CapabilityHeader],
    rule: fn(u16) -> Option<&'static Rule>,
) -> Vec<(CapabilityHeader, &'static Rule)> {
    let mut known: Vec<_> = all
        .iter()
        .filter_map(|one| Some((*one, rule(one.id)?)))
        .collect();
    known.sort_by_key(|(_, rule)| rule.access == Access::Raw);
    known
}

/// An endpoint that sits on the root bus, with no port above it, is an integrated endpoint
/// (PCIe, section 1.3.2.3): with this type guests expect no link registers and no port.
fn integrated_endpoint(flags: u32) -> u32 {
    flags & 0xffff_0000 & !(EXPRESS_TYPE | EXPRESS_SLOT) | EXPRESS_INTEGRATED_ENDPOINT
}

fn length(config: &[u32], start: u16, rule: &Rule) -> u16 {
    let dword = |offset: u16| config.get(index(offset)).copied().unwrap_or(0);
    let header = dword(start);
    match rule.length {
        Length::Fixed(length) => length,
        Length::Byte2 => u16::from(header.to_le_bytes()[2]).max(3),
        Length::Bits20 => u16::try_from(dword(start + 4) >> 20).unwrap_or(0).max(8),
        Length::Msi => Msi::new(upper_half(header), 1).length(),
        Length::Express if header & EXPRESS_VERSION < EXPRESS_VERSION_2 => EXPRESS_V1_LENGTH,
        Length::Express => EXPRESS_V2_LENGTH,
    }
}

fn upper_half(dword: u32) -> u16 {
    let [_, _, low, high] = dword.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Writes the bits in the mask of a register of so many bytes at `offset`, in as few accesses as
/// leave bytes without such bits alone.
fn write_through<H: HostFunction>(
    host: &mut H,
    offset: u16,
    value: u32,
    (mask, width): (u32, u16),
) -> Result<(), HostError> {
    if mask == 0 {
        return Ok(());
    }
    let whole = (0..width).all(|byte| mask >> (8 * byte) & 0xff != 0);
    if !whole {
        let half = width / 2;
        let low = low_bytes(half);
        write_through(host, offset, value & low, (mask & low, half))?;
        return write_through(
            host,
            offset + half,
            value >> (8 * half),
            (mask >> (8 * half), half),
        );
    }
    let mut bytes = [0; 4];
    if mask != low_bytes(width) {
        host.config_read(offset, &mut bytes[..width.into()])?;
    }
    let merged = u32::from_le_bytes(bytes) & !mask | value & mask;
    host.config_write(offset, &merged.to_le_bytes()[..width.into()])
}
