// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device generated for a test, and its profile.

use std::fmt::Write as _;

/// Where registers are, if not in [`BESIDE_MSIX`].
pub(super) const PLAIN: u8 = 0;
/// BAR with an alias of the registers, and a port to them: the profile names both.
pub(super) const OTHER_WAYS: u8 = 1;
/// BAR that shows the registers again, which the profile does not mention.
pub(super) const MIRROR: u8 = 2;
/// BAR with the MSI-X table, which is there more than once.
pub(super) const BESIDE_MSIX: u8 = 3;
/// Bytes with registers.
pub(super) const SPACE: u64 = 0x400;
/// In [`OTHER_WAYS`].
pub(super) const ALIAS: u64 = 0x1000;
pub(super) const INDEX: u64 = 0x2000;
pub(super) const DATA: u64 = 0x2008;
/// The device's own addresses.
pub(super) const WINDOW: std::ops::Range<u64> = 0x4000..0x5000;

#[derive(Clone, Debug)]
pub(super) struct Register {
    pub name: String,
    pub offset: u64,
    pub width: u64,
    /// Where the upper half is, if it is not behind the lower one.
    pub high: Option<u64>,
    pub high_first: bool,
    /// Bytes of each store that the device needs.
    pub store: u64,
    /// A narrower store replaces all.
    pub replace: bool,
    /// Widths that the device takes, if not all.
    pub accesses: Option<Vec<u64>>,
    pub read_back: bool,
    /// `reserved`, if the profile has the key; with "pass" no bit has another meaning.
    pub reserved: Option<&'static str>,
    pub writable: Option<u64>,
}

impl Register {
    pub fn bits(&self) -> u64 {
        u64::MAX >> (64 - 8 * self.width)
    }

    /// Offset of a byte.
    pub fn place(&self, byte: u64) -> u64 {
        match self.high {
            Some(high) if byte >= self.width / 2 => high + byte - self.width / 2,
            _ => self.offset + byte,
        }
    }

    pub fn takes(&self, length: u64) -> bool {
        self.accesses
            .as_ref()
            .is_none_or(|widths| widths.contains(&length))
    }
}

/// Bits of a register.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub register: usize,
    pub mask: u64,
    /// What they are, where that matters.
    pub value: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Addresses {
    Ends {
        source: usize,
        destination: usize,
    },
    Sides {
        memory: usize,
        device: Option<usize>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToMemory,
    FromMemory,
    Within,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    Fixed(Way),
    /// The field's value means "to memory", the other one "from memory".
    Field(Field, u64),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    Fixed(u64),
    Field { field: Field, unit: u64, bias: u64 },
}

/// What a store to the register with the busy bits does to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quirk {
    ReadOnly,
    /// A one clears them.
    OneClears,
    /// They are what was stored.
    Plain,
    /// A one in any bit that the profile does not call writable starts a transfer.
    Order,
}

#[derive(Clone, Debug)]
pub(super) struct Channel {
    pub addresses: Addresses,
    pub direction: Direction,
    pub length: Length,
    pub start: Field,
    pub pass: bool,
    /// None: the device copies its registers at the start.
    pub busy: Option<Field>,
    pub quirk: Quirk,
    pub status: Option<usize>,
    pub max_length: u64,
    pub address_bits: u64,
    pub alignment: u64,
    pub boundary: Option<u64>,
}

impl Channel {
    /// The bits of a register that start a transfer, or are its length or direction.
    pub fn named(&self, register: usize) -> u64 {
        let direction = match self.direction {
            Direction::Field(field, _) => Some(field),
            Direction::Fixed(_) => None,
        };
        let length = match self.length {
            Length::Field { field, .. } => Some(field),
            Length::Fixed(_) => None,
        };
        let fields = [Some(self.start), direction, length];
        let own = fields
            .into_iter()
            .flatten()
            .filter(|field| field.register == register);
        own.fold(0, |bits, field| bits | field.mask)
    }

    pub fn address_registers(&self) -> [Option<usize>; 2] {
        match self.addresses {
            Addresses::Ends {
                source,
                destination,
            } => [Some(source), Some(destination)],
            Addresses::Sides { memory, device } => [Some(memory), device],
        }
    }

    /// Whether a register holds a device's address.
    fn has_device_side(&self) -> bool {
        match self.addresses {
            Addresses::Sides { device, .. } => device.is_some(),
            Addresses::Ends { .. } => !matches!(self.direction, Direction::Fixed(Way::Within)),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Device {
    /// BAR of the registers.
    pub bar: u8,
    pub registers: Vec<Register>,
    pub channels: Vec<Channel>,
    pub refusal: &'static str,
    /// A reset stops and clears it.
    pub resets: bool,
    pub stride: u64,
}

impl Device {
    /// The profile, which describes the device correctly.
    pub fn profile(&self) -> String {
        let mut text = format!(
            "version = 1\nname = \"made-up\"\ndevices = [{{ vendor = 0x1234, device = 0x11e8 }}]\n\
             descriptors_in_memory = false\nrefusal = \"{}\"\n",
            self.refusal
        );
        for register in &self.registers {
            text += &self.register(register);
        }
        let bar = self.bar;
        let stride = self.stride;
        _ = write!(
            text,
            "[[alias]]\nbar = {OTHER_WAYS}\noffset = {ALIAS}\nlength = {SPACE}\nto_bar = {bar}\n\
             to_offset = 0\n[[port]]\nindex = {{ bar = {OTHER_WAYS}, offset = {INDEX}, width = 4 }}\n\
             data = {{ bar = {OTHER_WAYS}, offset = {DATA}, width = 8 }}\nto_bar = {bar}\n\
             stride = {stride}\n"
        );
        for (number, channel) in self.channels.iter().enumerate() {
            text += &self.transfer(number, channel);
        }
        text
    }

    fn register(&self, register: &Register) -> String {
        let mut text = format!(
            "[[register]]\nname = \"{}\"\nbar = {}\noffset = {}\nwidth = {}\nstore = {}\n",
            register.name, self.bar, register.offset, register.width, register.store
        );
        if let Some(high) = register.high {
            _ = writeln!(
                text,
                "high_offset = {high}\nhigh_first = {}",
                register.high_first
            );
        }
        if register.replace {
            text += "partial = \"replace\"\n";
        }
        if let Some(widths) = &register.accesses {
            _ = writeln!(text, "accesses = {widths:?}");
        }
        if register.read_back {
            text += "read_back = true\n";
        }
        if let Some(reserved) = register.reserved {
            _ = writeln!(text, "reserved = \"{reserved}\"");
        }
        if let Some(writable) = register.writable {
            _ = writeln!(text, "writable = {writable:#x}");
        }
        text
    }

    fn transfer(&self, number: usize, channel: &Channel) -> String {
        let name = |register: usize| &self.registers[register].name;
        let mut text = format!("[[transfer]]\nname = \"{number}\"\n");
        _ = match channel.addresses {
            Addresses::Ends {
                source,
                destination,
            } => writeln!(
                text,
                "source = \"{}\"\ndestination = \"{}\"",
                name(source),
                name(destination)
            ),
            Addresses::Sides { memory, device } => {
                if let Some(device) = device {
                    _ = writeln!(text, "device = \"{}\"", name(device));
                }
                writeln!(text, "memory = \"{}\"", name(memory))
            }
        };
        text += &self.fields(channel);
        let bits = |field: &Field| {
            let name = name(field.register);
            let (mask, value) = (field.mask, field.value);
            format!("register = \"{name}\", mask = {mask:#x}, value = {value:#x}")
        };
        let otherwise = if channel.pass { "pass" } else { "drop" };
        _ = writeln!(
            text,
            "start = {{ {}, otherwise = \"{otherwise}\" }}",
            bits(&channel.start)
        );
        _ = match &channel.busy {
            Some(busy) => writeln!(text, "busy = {{ {} }}", bits(busy)),
            None => writeln!(text, "latched_at_start = true"),
        };
        if let Some(status) = channel.status {
            _ = writeln!(text, "status = \"{}\"", name(status));
        }
        if let Some(boundary) = channel.boundary {
            _ = writeln!(text, "boundary = {boundary}");
        }
        if channel.has_device_side() {
            let (start, length) = (WINDOW.start, WINDOW.end - WINDOW.start);
            _ = writeln!(text, "window = {{ start = {start}, length = {length} }}");
        }
        _ = writeln!(
            text,
            "max_length = {}\naddress_bits = {}\nalignment = {}",
            channel.max_length, channel.address_bits, channel.alignment
        );
        text
    }

    /// Length and direction.
    fn fields(&self, channel: &Channel) -> String {
        let name = |register: usize| &self.registers[register].name;
        let mut text = String::new();
        _ = match channel.length {
            Length::Fixed(bytes) => writeln!(text, "length = {{ fixed = {bytes} }}"),
            Length::Field { field, unit, bias } => writeln!(
                text,
                "length = {{ register = \"{}\", mask = {:#x}, unit = {unit}, bias = {bias} }}",
                name(field.register),
                field.mask
            ),
        };
        _ = match channel.direction {
            Direction::Fixed(way) => {
                let way = match way {
                    Way::ToMemory => "to-memory",
                    Way::FromMemory => "from-memory",
                    Way::Within => "memory-to-memory",
                };
                writeln!(text, "direction = {{ fixed = \"{way}\" }}")
            }
            Direction::Field(field, from) => writeln!(
                text,
                "direction = {{ register = \"{}\", mask = {:#x}, to_memory = {:#x}, from_memory = {from:#x} }}",
                name(field.register),
                field.mask,
                field.value
            ),
        };
        text
    }
}
