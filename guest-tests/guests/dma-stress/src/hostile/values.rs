// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is written to the DMA registers, and whether it may start a transfer.

use crate::ram::Ram;

/// First address of the device's buffer for its DMA engine.
pub const BUFFER: u64 = 0x4_0000;
/// Bytes of the buffer.
pub const BUFFER_BYTES: u64 = 4096;

const PAGE: u64 = 4096;
const START: u64 = 1;
const TO_MEMORY: u64 = 2;

/// Contents of the registers that describe a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// Where the data comes from.
    pub source: u64,
    /// Where it goes.
    pub destination: u64,
    /// Its bytes.
    pub count: u64,
    /// Start and direction.
    pub command: u64,
}

/// What should become of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is refused, whatever memory the guest has in the host.
    Refused,
    /// It runs, whatever memory the guest has in the host.
    Runs,
    /// It runs if two pages follow one another in the host.
    Depends,
}

impl Values {
    /// A start that moves bytes from memory to the device.
    #[must_use]
    pub fn from_memory(gpa: u64, device: u64, count: u64) -> Self {
        Self {
            source: gpa,
            destination: device,
            count,
            command: START,
        }
    }

    /// A start that moves bytes from the device to memory.
    #[must_use]
    pub fn to_memory(device: u64, gpa: u64, count: u64) -> Self {
        Self {
            source: device,
            destination: gpa,
            count,
            command: START | TO_MEMORY,
        }
    }

    /// Whether memory is where the data goes.
    #[must_use]
    pub fn is_to_memory(self) -> bool {
        self.command & TO_MEMORY != 0
    }

    /// The address in memory.
    #[must_use]
    pub fn memory(self) -> u64 {
        match self.is_to_memory() {
            true => self.destination,
            false => self.source,
        }
    }

    /// The address on the device's side.
    #[must_use]
    pub fn device(self) -> u64 {
        match self.is_to_memory() {
            true => self.source,
            false => self.destination,
        }
    }

    /// The same with another address in memory.
    #[must_use]
    pub fn with_memory(self, gpa: u64) -> Self {
        match self.is_to_memory() {
            true => Self {
                destination: gpa,
                ..self
            },
            false => Self {
                source: gpa,
                ..self
            },
        }
    }

    /// The same with another address on the device's side.
    #[must_use]
    pub fn with_device(self, address: u64) -> Self {
        match self.is_to_memory() {
            true => Self {
                source: address,
                ..self
            },
            false => Self {
                destination: address,
                ..self
            },
        }
    }

    /// What should become of it in a guest with `ram`.
    #[must_use]
    pub fn fate(self, ram: &Ram) -> Fate {
        let (gpa, count) = (self.memory(), self.count);
        let window = BUFFER..BUFFER + BUFFER_BYTES;
        let fits = (1..=BUFFER_BYTES).contains(&count)
            && window.contains(&self.device())
            && count <= window.end - self.device();
        if !fits || !is_memory(ram, gpa, count) {
            Fate::Refused
        } else if gpa % PAGE + count <= PAGE {
            Fate::Runs
        } else {
            Fate::Depends
        }
    }
}

/// Whether all `count` bytes are memory that devices may reach.
fn is_memory(ram: &Ram, gpa: u64, count: u64) -> bool {
    let Some(end) = gpa.checked_add(count) else {
        return false;
    };
    let mut at = gpa;
    for extent in ram.extents() {
        if extent.start.0 <= at && at < extent.end.0 {
            at = extent.end.0.min(end);
        }
    }
    at >= end
}

#[cfg(test)]
mod tests {
    use address::Gpa;

    use super::*;

    #[test]
    fn a_fate_is_that_of_the_worst_part() {
        let (a, b) = (0x20_0000, 0x20_2000);
        let ram = Ram::new(&[Gpa(a)..Gpa(b), Gpa(b)..Gpa(b + PAGE)]);
        let to = |gpa, count| Values::to_memory(BUFFER, gpa, count).fate(&ram);
        assert_eq!(to(a, 4096), Fate::Runs);
        assert_eq!(to(a + 1, 4096), Fate::Depends);
        assert_eq!(to(b - 1, 2), Fate::Depends);
        assert_eq!(to(b + PAGE - 1, 1), Fate::Runs);
        for (gpa, count) in [
            (a, 0),
            (a, 4097),
            (a, u64::MAX),
            (a - 1, 1),
            (a - 1, 2),
            (b + PAGE - 1, 2),
            (b + PAGE, 1),
            (u64::MAX, 1),
            (u64::MAX, 2),
            (a | 1 << 40, 1),
        ] {
            assert_eq!(to(gpa, count), Fate::Refused, "{gpa:#x} {count:#x}");
        }
        let from = |device, count| Values::from_memory(a, device, count).fate(&ram);
        assert_eq!(from(BUFFER + 4095, 1), Fate::Runs);
        for (device, count) in [
            (BUFFER - 1, 1),
            (BUFFER + 4095, 2),
            (BUFFER + 4096, 1),
            (u64::MAX, 2),
        ] {
            assert_eq!(from(device, count), Fate::Refused);
        }
        // The other direction.
        let swapped = Values {
            command: START,
            ..Values::to_memory(BUFFER, a, 16)
        };
        assert_eq!(swapped.fate(&ram), Fate::Refused);
    }
}
