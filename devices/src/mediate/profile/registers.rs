// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Locations of registers: their own offsets, aliases and ports.

use std::ops::Range;

use super::error::Invalid;
use super::format::{self, Partial, Reserved};
use super::problem::{Problem, check_name, number, problem};

/// No BAR is as large; sums of two offsets cannot overflow.
const OFFSETS: u64 = 1 << 52;

/// Registers that the device gets in one call of the host, at most.
pub(in super::super) const RUN: usize = 8;

/// What is done with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    /// Kept by the monitor; the device gets it at a start.
    Shadow,
    /// Its stores start a transfer; its reads are the device's.
    Start,
    /// The device's.
    Status,
}

/// Consecutive bytes of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Span {
    /// Offset in the BAR.
    pub offset: u64,
    pub length: u8,
    /// Which byte of the register the first one is.
    pub first: u8,
}

impl Span {
    pub fn range(self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.length)
    }
}

#[derive(Clone, Debug)]
pub(in super::super) struct Register {
    pub name: String,
    pub bar: u8,
    /// Bytes: 1, 2, 4 or 8.
    pub width: u8,
    /// One or two, in the order in which the device is programmed.
    pub spans: Vec<Span>,
    /// Bytes of each store to the device; divides the spans' lengths.
    pub store: u8,
    /// Bit n: accesses of n bytes are taken.
    accesses: u16,
    /// The device is asked before a start whether it has taken what was stored.
    pub read_back: bool,
    pub partial: Partial,
    /// What happens to bits that no field names, if the profile specifies it.
    pub(super) reserved: Option<Reserved>,
    /// More bits that the device gets as the guest wrote them.
    pub(super) writable: Option<u64>,
    /// The bits that the device gets as the guest wrote them, or the monitor for it; the others
    /// it gets as zeros.
    pub passed: u64,
    pub kind: Kind,
    /// Which transfer it belongs to.
    pub transfer: usize,
}

impl Register {
    /// All bits of the register.
    pub fn bits(&self) -> u64 {
        ones(self.width)
    }

    /// How many stores the device takes it in.
    pub fn stores(&self) -> usize {
        usize::from(self.width / self.store)
    }

    /// The bits that the device gets with the last of them.
    pub fn last_store(&self) -> u64 {
        let end = self.spans.last().map_or(0, |span| span.first + span.length);
        let first = end.saturating_sub(self.store);
        ones(self.store) << (8 * u32::from(first))
    }

    /// Whether `next` is behind it, and the device takes and shows both in the same way, in one access of 8 bytes each:
    /// the host then makes these accesses of one that is as long as both (Linux drivers/vfio/pci/vfio_pci_rdwr.c
    /// `vfio_pci_core_do_io_rw`).
    pub fn precedes(&self, next: &Self) -> bool {
        let is_whole = |register: &Self| register.spans.len() == 1 && register.store == 8;
        let is_behind = self.spans[0].range().end == next.spans[0].offset;
        let is_same = self.bar == next.bar && self.read_back == next.read_back;
        is_whole(self) && is_whole(next) && is_behind && is_same
    }

    /// Whether the device takes an access of `length` bytes at `offset`, which is in the
    /// register at least in part.
    pub fn takes(&self, offset: u64, length: usize) -> bool {
        let width = length < 16 && self.accesses & 1 << length != 0;
        let inside = |span: &Span| span.offset == offset && length <= span.length.into();
        width && (self.partial == Partial::Merge || self.spans.iter().any(inside))
    }

    /// What an access and the register have in common.
    pub fn parts_in(&self, access: &Range<u64>) -> impl Iterator<Item = Part> {
        let access = access.clone();
        self.spans.iter().filter_map(move |span| {
            let start = span.offset.max(access.start);
            let end = span.range().end.min(access.end);
            let length = end.checked_sub(start).filter(|length| *length > 0)?;
            // An access has 8 bytes at most, as a register has.
            let bytes = |count: u64| u8::try_from(count).ok();
            Some(Part {
                place: bytes(start - access.start)?,
                byte: span.first + bytes(start - span.offset)?,
                length: bytes(length)?,
            })
        })
    }
}

/// Consecutive bytes that an access and a register have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Part {
    /// Which byte of the access is the first one.
    pub place: u8,
    /// Which byte of the register it is.
    pub byte: u8,
    /// How many, at least 1.
    pub length: u8,
}

impl Part {
    /// All bits of the part, in the access.
    pub fn in_access(self) -> u64 {
        ones(self.length) << (8 * self.place)
    }

    /// All bits of the part, in the register.
    pub fn in_register(self) -> u64 {
        ones(self.length) << (8 * self.byte)
    }

    /// The part of an access that has the bytes of `value`, as the register has it; zeros around it.
    pub fn to_register(self, value: u64) -> u64 {
        (value & self.in_access()) >> (8 * self.place) << (8 * self.byte)
    }

    /// The part of a register of `value`, as the access has it; zeros around it.
    pub fn to_access(self, value: u64) -> u64 {
        (value & self.in_register()) >> (8 * self.byte) << (8 * self.place)
    }
}

/// All bits of `bytes` bytes, 8 at most.
pub(in super::super) fn ones(bytes: u8) -> u64 {
    u64::MAX.unbounded_shr(64 - 8 * u32::from(bytes.min(8)))
}

/// A range that is another one's registers.
#[derive(Clone, Debug)]
pub(in super::super) struct Alias {
    pub bar: u8,
    pub range: Range<u64>,
    pub to_bar: u8,
    pub to_offset: u64,
}

#[derive(Clone, Debug)]
pub(in super::super) struct Place {
    pub bar: u8,
    pub range: Range<u64>,
}

/// A register that selects, and one behind which the selected register is.
#[derive(Clone, Debug)]
pub(in super::super) struct Port {
    pub index: Place,
    pub data: Place,
    pub to_bar: u8,
    pub to_offset: u64,
    pub stride: u64,
}

pub(super) fn check_registers(registers: Vec<format::Register>) -> Result<Vec<Register>, Problem> {
    let mut checked: Vec<Register> = Vec::new();
    for register in registers {
        let name = register.name.clone();
        let key = |key| format!("register {name:?}: {key}");
        check_name(&name).map_err(|reason| problem(key("name"), reason))?;
        if checked.iter().any(|other| other.name == name) {
            return Err(problem(key("name"), Invalid::Duplicate));
        }
        checked.push(check_register(register).map_err(|(at, reason)| problem(key(at), reason))?);
    }
    Ok(checked)
}

fn check_register(register: format::Register) -> Result<Register, (&'static str, Invalid)> {
    check_place(register.bar, register.offset, register.width)?;
    let spans = check_spans(&register)?;
    let length = spans[0].length;
    let store = register.store.unwrap_or(length);
    let divides = store != 0 && length.is_multiple_of(store);
    number(divides, store.into(), "a part of the register's bytes").map_err(|e| ("store", e))?;
    for span in &spans {
        let aligned = span.offset.is_multiple_of(store.into());
        number(aligned, span.offset, "a multiple of the bytes of a store")
            .map_err(|e| ("offset", e))?;
    }
    if register.partial == Partial::Replace && store != register.width {
        // The upper bytes would be zeros in the device.
        let reason = "partial = \"replace\" requires one store of the whole register";
        return Err(("store", Invalid::Combination(reason)));
    }
    let mut accesses = 0;
    for width in register.accesses.unwrap_or_else(|| vec![1, 2, 4, 8]) {
        number(is_width(width), width.into(), "1, 2, 4 or 8").map_err(|e| ("accesses", e))?;
        accesses |= 1 << width;
    }
    if accesses & 1 << store == 0 {
        // The device would keep what an earlier transfer left in it.
        let expected = "widths that include that of a store to the device";
        let found = store.into();
        return Err(("accesses", Invalid::Number { found, expected }));
    }
    Ok(Register {
        name: register.name,
        bar: register.bar,
        width: register.width,
        spans,
        store,
        accesses,
        read_back: register.read_back,
        partial: register.partial,
        reserved: register.reserved,
        writable: register.writable,
        passed: 0,
        kind: Kind::Status,
        transfer: 0,
    })
}

fn check_spans(register: &format::Register) -> Result<Vec<Span>, (&'static str, Invalid)> {
    let (offset, width) = (register.offset, register.width);
    let Some(high_offset) = register.high_offset else {
        let high_first = register.high_first;
        let reason = Invalid::Combination("only for a register with a high_offset");
        return if high_first {
            Err(("high_first", reason))
        } else {
            let (first, length) = (0, width);
            Ok(vec![Span {
                offset,
                length,
                first,
            }])
        };
    };
    let half = width / 2;
    number(half != 0, width.into(), "2, 4 or 8 for two halves").map_err(|e| ("width", e))?;
    number(high_offset < OFFSETS, high_offset, "less than 2^52").map_err(|e| ("high_offset", e))?;
    if register.partial == Partial::Replace {
        let reason = Invalid::Combination("\"replace\" is not for a register in two halves");
        return Err(("partial", reason));
    }
    let low = Span {
        offset,
        length: half,
        first: 0,
    };
    let high = Span {
        offset: high_offset,
        length: half,
        first: half,
    };
    let mut spans = vec![low, high];
    if register.high_first {
        spans.reverse();
    }
    Ok(spans)
}

fn is_width(width: u8) -> bool {
    matches!(width, 1 | 2 | 4 | 8)
}

fn check_place(bar: u8, offset: u64, width: u8) -> Result<(), (&'static str, Invalid)> {
    number(bar < 6, bar.into(), "0 to 5").map_err(|e| ("bar", e))?;
    number(offset < OFFSETS, offset, "less than 2^52").map_err(|e| ("offset", e))?;
    number(is_width(width), width.into(), "1, 2, 4 or 8").map_err(|e| ("width", e))
}

pub(super) fn check_aliases(aliases: &[format::Alias]) -> Result<Vec<Alias>, Problem> {
    let check = |alias: &format::Alias| {
        for (key, bar) in [("bar", alias.bar), ("to_bar", alias.to_bar)] {
            number(bar < 6, bar.into(), "0 to 5").map_err(|e| (key, e))?;
        }
        for (key, value) in [
            ("offset", alias.offset),
            ("to_offset", alias.to_offset),
            ("length", alias.length),
        ] {
            let fits = value < OFFSETS && value.is_multiple_of(4);
            number(fits, value, "a multiple of 4 below 2^52").map_err(|e| (key, e))?;
        }
        number(alias.length != 0, 0, "at least 4").map_err(|e| ("length", e))?;
        Ok(Alias {
            bar: alias.bar,
            range: alias.offset..alias.offset + alias.length,
            to_bar: alias.to_bar,
            to_offset: alias.to_offset,
        })
    };
    let named = |(at, alias)| {
        check(alias).map_err(|(key, reason)| problem(format!("alias {at}: {key}"), reason))
    };
    (1..).zip(aliases).map(named).collect()
}

pub(super) fn check_ports(ports: Vec<format::Port>) -> Result<Vec<Port>, Problem> {
    let check = |port: format::Port| {
        for place in [&port.index, &port.data] {
            check_place(place.bar, place.offset, place.width)?;
            let aligned = place.offset.is_multiple_of(place.width.into());
            number(aligned, place.offset, "a multiple of the width").map_err(|e| ("offset", e))?;
        }
        number(port.to_bar < 6, port.to_bar.into(), "0 to 5").map_err(|e| ("to_bar", e))?;
        number(port.to_offset < OFFSETS, port.to_offset, "less than 2^52")
            .map_err(|e| ("to_offset", e))?;
        number(port.stride != 0, 0, "at least 1").map_err(|e| ("stride", e))?;
        let place = |place: format::Place| Place {
            bar: place.bar,
            range: place.offset..place.offset + u64::from(place.width),
        };
        Ok(Port {
            index: place(port.index),
            data: place(port.data),
            to_bar: port.to_bar,
            to_offset: port.to_offset,
            stride: port.stride,
        })
    };
    let named = |(at, port)| {
        check(port).map_err(|(key, reason)| problem(format!("port {at}: {key}"), reason))
    };
    (1..).zip(ports).map(named).collect()
}

/// All that the monitor answers for is in one place only, and an alias leads to none.
pub(super) fn check_overlap(
    registers: &[Register],
    aliases: &[Alias],
    ports: &[Port],
) -> Result<(), Problem> {
    let mut places: Vec<(String, u8, Range<u64>)> = Vec::new();
    for register in registers {
        for span in &register.spans {
            places.push((
                format!("register {:?}", register.name),
                register.bar,
                span.range(),
            ));
        }
    }
    for (at, alias) in (1..).zip(aliases) {
        places.push((format!("alias {at}"), alias.bar, alias.range.clone()));
    }
    for (at, port) in (1..).zip(ports) {
        for (part, place) in [("index", &port.index), ("data", &port.data)] {
            places.push((format!("port {at}: {part}"), place.bar, place.range.clone()));
        }
    }
    for (at, (key, bar, range)) in places.iter().enumerate() {
        let shared = places[..at].iter().find(|(_, other_bar, other)| {
            other_bar == bar && other.start < range.end && range.start < other.end
        });
        if let Some((other, ..)) = shared {
            let other = other.clone();
            return Err(problem(key.clone(), Invalid::Overlap { other }));
        }
    }
    for (at, alias) in (1..).zip(aliases) {
        let target = alias.to_offset..alias.to_offset + (alias.range.end - alias.range.start);
        let leads_to = |other: &Alias| {
            other.bar == alias.to_bar
                && other.range.start < target.end
                && target.start < other.range.end
        };
        if let Some(other) = aliases.iter().position(leads_to) {
            let other = format!("alias {}", other + 1);
            return Err(problem(
                format!("alias {at}: to_offset"),
                Invalid::Overlap { other },
            ));
        }
    }
    Ok(())
}
