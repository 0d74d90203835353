// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which capabilities the guest's lists hold, and the masks of their registers.

use pci_config::regs::{
    AF_CAPABILITIES_FLR, CAP_AF, CAP_EXPRESS, CAP_PM, CAPABILITIES, COMMAND,
    CONVENTIONAL_CONFIG_SIZE, EXP_DEVICE_CAPABILITIES, EXP_DEVICE_CAPABILITIES_FLR,
    EXP_DEVICE_CONTROL, EXP_FLAGS_SLOT, EXP_FLAGS_TYPE, EXP_FLAGS_VERSION,
    EXP_TYPE_INTEGRATED_ENDPOINT, EXP_V1_INTEGRATED_LENGTH, EXP_V1_LENGTH,
    EXP_V2_INTEGRATED_LENGTH, EXP_V2_LENGTH, EXTENDED_CAPABILITIES, STATUS_CAPABILITIES,
    upper_half,
};
use pci_config::{Capability, InterruptKind, MsiControl, capabilities, extended_capabilities};

use super::super::policy::{self, Access, Length, Rule};
use super::{ConfigSpace, Offer, index};

/// What holds the place of a first capability that the guest does not see.
const ANCHOR: Capability = Capability {
    id: 0,
    version: 0,
    offset: EXTENDED_CAPABILITIES,
};

/// One of the two lists.
struct List {
    all: Vec<Capability>,
    rule: fn(u16) -> Option<&'static Rule>,
    /// Bytes of a capability's header.
    header: u16,
    /// Where the list's part of config space ends.
    end: u16,
}

impl List {
    /// Where `capability`, of so many bytes, ends at the latest: another one may begin before.
    fn end_of(&self, capability: Capability, length: u16) -> u16 {
        let start = capability.offset;
        let next = self.all.iter().map(|other| other.offset);
        let next = next.filter(|other| *other > start).min();
        let room = next.unwrap_or(self.end).min(self.end) - start;
        start + length.min(room)
    }
}

impl ConfigSpace {
    pub(super) fn lay_out_standard(&mut self, config: &[u32], offer: Offer) {
        let list = List {
            all: capabilities(config).map(|Ok(found)| found).collect(),
            rule: policy::standard,
            header: 2,
            end: CONVENTIONAL_CONFIG_SIZE,
        };
        let express = list.all.iter().find(|one| one.id == CAP_EXPRESS.into());
        self.located.device_control = express
            .map(|one| one.offset + EXP_DEVICE_CONTROL)
            .filter(|at| at + 2 <= CONVENTIONAL_CONFIG_SIZE);
        let shown = self.lay_out_list(config, &list, |id| {
            InterruptKind::of_capability(id).is_none_or(|kind| offer.interrupts[kind])
        });
        if !offer.function_reset {
            self.hide_function_reset();
        }
        self.link_standard(&shown);
    }

    fn link_standard(&mut self, shown: &[Capability]) {
        let offsets = shown.iter().map(|capability| capability.offset);
        let mut next = offsets.clone().skip(1);
        for capability in shown {
            let pointer = next.next().unwrap_or(0);
            let header = &mut self.shadow[index(capability.offset)];
            *header = *header & 0xffff_0000 | u32::from(capability.standard_header(pointer));
            self.read_host[index(capability.offset)] &= 0xffff_0000;
        }
        if let Some(first) = offsets.clone().next() {
            self.shadow[index(CAPABILITIES)] = u32::from(first);
            self.shadow[index(COMMAND)] |= upper_half(STATUS_CAPABILITIES);
        }
    }

    pub(super) fn lay_out_extended(&mut self, config: &[u32]) {
        let list = List {
            all: extended_capabilities(config)
                .map(|Ok(found)| found)
                .collect(),
            rule: policy::extended,
            header: 4,
            end: self.size(),
        };
        let shown = self.lay_out_list(config, &list, |_| true);
        self.link_extended(&shown);
    }

    fn link_extended(&mut self, shown: &[Capability]) {
        let Some(anchor) = self.shadow.get(index(EXTENDED_CAPABILITIES)) else {
            return;
        };
        debug_assert_eq!(*anchor, 0);
        self.claim(EXTENDED_CAPABILITIES, 4);
        let mut next = shown.iter().map(|capability| capability.offset);
        // The list starts at 0x100; a hidden first capability leaves an anchor with ID 0.
        if shown
            .first()
            .is_some_and(|first| first.offset == EXTENDED_CAPABILITIES)
        {
            next.next();
        } else if let Some(first) = next.clone().next() {
            self.shadow[index(EXTENDED_CAPABILITIES)] = ANCHOR.extended_header(first);
            next.next();
        }
        for capability in shown {
            let pointer = next.next().unwrap_or(0);
            self.shadow[index(capability.offset)] = capability.extended_header(pointer);
            self.read_host[index(capability.offset)] = 0;
            self.write_host[index(capability.offset)] = 0;
        }
    }

    /// Sets the masks of all capabilities of `list` and returns those that are shown, in order.
    ///
    /// First come those whose bytes a rule covers, then those that are hidden, and last a vendor's
    /// own, so that one of these with a wrong length takes no other's registers.
    fn lay_out_list(
        &mut self,
        config: &[u32],
        list: &List,
        offered: impl Fn(u16) -> bool,
    ) -> Vec<Capability> {
        for capability in &list.all {
            self.claim(capability.offset, list.header);
        }
        let mut shown: Vec<Capability> = Vec::new();
        let (mut hidden, mut vendors) = (Vec::new(), Vec::new());
        for capability in &list.all {
            let rule = (list.rule)(capability.id);
            match rule {
                Some(rule) if rule.access == Access::Raw => vendors.push((*capability, rule)),
                // The second of a kind would be a second way around the first.
                Some(rule)
                    if offered(capability.id)
                        && !shown.iter().any(|other| other.id == capability.id)
                        && self.lay_out(config, *capability, rule, list) =>
                {
                    shown.push(*capability);
                }
                _ => hidden.push((*capability, rule)),
            }
        }
        for (capability, rule) in hidden {
            // Of an unknown one everything up to the next may be part.
            let length = rule.map_or(u16::MAX, |rule| length(config, capability.offset, rule));
            self.hide(capability.offset, list.end_of(capability, length));
        }
        for (capability, rule) in vendors {
            if self.lay_out(config, capability, rule, list) {
                shown.push(capability);
            }
        }
        let in_order = list.all.iter().filter(|one| shown.contains(one));
        in_order.copied().collect()
    }

    /// Claims the capability's bytes and sets their masks; false if it stays hidden.
    fn lay_out(
        &mut self,
        config: &[u32],
        capability: Capability,
        rule: &Rule,
        list: &List,
    ) -> bool {
        let (name, word, reason) = (rule.name, rule.access.word(), rule.reason);
        log::debug!(
            "capability at {:#x}: {name}: {word}: {reason}",
            capability.offset
        );
        let start = capability.offset;
        let length = length(config, start, rule);
        let whole = length <= list.end - start;
        let end = start + length.min(list.end - start);
        let body = start + list.header;
        match rule.access {
            Access::Hidden => return false,
            Access::Emulated => {
                if !whole || !self.is_free(body, end) {
                    return false;
                }
                self.shadow_dwords(config, start, end);
            }
            Access::ReadOnly => self.pass(body, end, false),
            Access::Raw => self.pass(body, end, true),
            Access::Registers(registers) => {
                if !whole || !self.is_free(body, end) {
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

    /// Lets the guest read the unclaimed bytes of a hidden capability, but not write them.
    fn hide(&mut self, start: u16, end: u16) {
        for offset in start..end {
            self.refused[index(offset)] |= super::byte_mask(offset);
        }
        self.pass(start, end, false);
        self.claim(start, end - start);
    }

    fn locate(&mut self, config: &[u32], capability: Capability) {
        let start = capability.offset;
        if start >= CONVENTIONAL_CONFIG_SIZE {
            return;
        }
        let place = match u8::try_from(capability.id) {
            Ok(CAP_PM) => &mut self.located.pm,
            Ok(CAP_EXPRESS) => {
                self.shadow[index(start)] = integrated_endpoint(config[index(start)]);
                &mut self.located.express
            }
            Ok(CAP_AF) => {
                self.shadow[index(start)] = config[index(start)] & 0xffff_0000;
                &mut self.located.af
            }
            _ => match InterruptKind::of_capability(capability.id) {
                Some(kind) => &mut self.located.messages[kind],
                None => return,
            },
        };
        *place = Some(start);
    }

    /// Takes the bits away that offer a reset of the function.
    fn hide_function_reset(&mut self) {
        if let Some(at) = self.located.express {
            self.read_host[index(at + EXP_DEVICE_CAPABILITIES)] &= !EXP_DEVICE_CAPABILITIES_FLR;
        }
        if let Some(at) = self.located.af {
            self.shadow[index(at)] &= !AF_CAPABILITIES_FLR;
        }
    }
}

/// An endpoint that sits on the root bus, with no port above it, is an integrated endpoint
/// (PCIe, section 1.3.2.3): with this type guests expect no link registers and no port. Version and message number
/// of PCI Express Capabilities, the upper half of `flags`, stay.
fn integrated_endpoint(flags: u32) -> u32 {
    let changed = EXP_FLAGS_TYPE | EXP_FLAGS_SLOT;
    flags & 0xffff_0000 & !upper_half(changed) | upper_half(EXP_TYPE_INTEGRATED_ENDPOINT)
}

fn length(config: &[u32], start: u16, rule: &Rule) -> u16 {
    let dword = |offset: u16| config.get(index(offset)).copied().unwrap_or(0);
    let header = dword(start);
    match rule.length {
        Length::Fixed(length) => length,
        Length::Byte2 => u16::from(header.to_le_bytes()[2]).max(3),
        Length::Bits20 => u16::try_from(dword(start + 4) >> 20).unwrap_or(0).max(8),
        Length::Msi => MsiControl(second_half(header)).length(),
        Length::Express => express_length(header),
    }
}

fn express_length(header: u32) -> u16 {
    let flags = second_half(header);
    let is_integrated = flags & EXP_FLAGS_TYPE == EXP_TYPE_INTEGRATED_ENDPOINT;
    match (flags & EXP_FLAGS_VERSION < 2, is_integrated) {
        (true, false) => EXP_V1_LENGTH,
        (true, true) => EXP_V1_INTEGRATED_LENGTH,
        (false, false) => EXP_V2_LENGTH,
        (false, true) => EXP_V2_INTEGRATED_LENGTH,
    }
}

fn second_half(dword: u32) -> u16 {
    let [_, _, low, high] = dword.to_le_bytes();
    u16::from_le_bytes([low, high])
}
