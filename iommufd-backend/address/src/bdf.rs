// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Names of PCI functions.

use core::fmt;
use core::str::FromStr;

/// A PCI function: domain (segment), bus, device (0 to 31) and function (0 to 7), written
/// `0000:01:00.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl Bdf {
    /// `None` if `device` exceeds 31 or `function` exceeds 7.
    #[must_use]
    pub const fn new(domain: u32, bus: u8, device: u8, function: u8) -> Option<Self> {
        if device > 31 || function > 7 {
            return None;
        }
        Some(Self {
            domain,
            bus,
            device,
            function,
        })
    }

    /// The PCI domain, which ACPI calls segment. More than 16 bits only for domains that the
    /// kernel made up.
    #[must_use]
    pub const fn domain(self) -> u32 {
        self.domain
    }

    /// Bus number.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.bus
    }

    /// Device number on the bus, 0 to 31.
    #[must_use]
    pub const fn device(self) -> u8 {
        self.device
    }

    /// Function number of the device, 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.function
    }

    /// The 16 bits that name the function on its domain's buses (PCI Express 6.0, section 2.2.4.2).
    #[must_use]
    pub const fn routing_id(self) -> u16 {
        (self.bus as u16) << 8 | (self.device as u16) << 3 | self.function as u16
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{}",
            self.domain, self.bus, self.device, self.function
        )
    }
}

/// The text is not the name of a PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseBdfError;

impl fmt::Display for ParseBdfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a PCI address such as 0000:01:00.0 or 01:00.0")
    }
}

impl core::error::Error for ParseBdfError {}

/// Accepts `DDDD:BB:DD.F` and, in domain 0, `BB:DD.F`, in hexadecimal.
impl FromStr for Bdf {
    type Err = ParseBdfError;

    fn from_str(text: &str) -> Result<Self, ParseBdfError> {
        let (rest, function) = text.rsplit_once('.').ok_or(ParseBdfError)?;
        let (rest, device) = rest.rsplit_once(':').ok_or(ParseBdfError)?;
        let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
        let byte = |digits| hex(digits, 2).and_then(|n| u8::try_from(n).ok());
        Self::new(
            hex(domain, 8).ok_or(ParseBdfError)?,
            byte(bus).ok_or(ParseBdfError)?,
            byte(device).ok_or(ParseBdfError)?,
            byte(function).ok_or(ParseBdfError)?,
        )
        .ok_or(ParseBdfError)
    }
}

/// Hexadecimal digits only: `from_str_radix` alone would take a sign.
fn hex(digits: &str, most: usize) -> Option<u32> {
    let valid =
        (1..=most).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    valid.then(|| u32::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn both_forms_parse_and_print_in_full() {
        for (text, full) in [
            ("0000:01:00.0", "0000:01:00.0"),
            ("01:00.0", "0000:01:00.0"),
            ("ff:1f.7", "0000:ff:1f.7"),
            ("10000:e1:00.0", "10000:e1:00.0"),
        ] {
            assert_eq!(text.parse::<Bdf>().unwrap().to_string(), full);
        }
    }

    #[test]
    fn a_routing_id_has_all_numbers_but_the_domain() {
        for (text, id) in [
            ("01:00.0", 0x100),
            ("1:ff:1f.7", 0xffff),
            ("02:10.2", 0x282),
        ] {
            assert_eq!(text.parse::<Bdf>().unwrap().routing_id(), id, "{text}");
        }
    }

    #[test]
    fn what_is_no_function_is_refused() {
        for text in [
            "",
            "1",
            "01:00",
            "01:20.0",
            "01:00.8",
            "100:00.0",
            "+1:00.0",
            "01:00.0 ",
            ":00.0",
            "01:00.",
            "zz:00.0",
            "123456789:01:00.0",
            "/sys/bus",
        ] {
            assert_eq!(text.parse::<Bdf>(), Err(ParseBdfError), "{text}");
        }
    }
}
