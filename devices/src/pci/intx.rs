// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! INTx pins and their routing to the four interrupt lines of the root bus.

/// The interrupt pin of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pin {
    /// INTA#.
    A,
    /// INTB#.
    B,
    /// INTC#.
    C,
    /// INTD#.
    D,
}

impl Pin {
    /// All pins in order.
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::D];

    /// The pin that the Interrupt Pin register's `value` names: 1 to 4; `None` for others.
    #[must_use]
    pub fn from_register(value: u8) -> Option<Self> {
        let index = usize::from(value).checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// Value of the Interrupt Pin register.
    #[must_use]
    pub fn register(self) -> u8 {
        self.index() + 1
    }

    /// 0 for INTA# to 3 for INTD#, as `_PRT` counts.
    #[must_use]
    pub fn index(self) -> u8 {
        match self {
            Self::A => 0,
            Self::B => 1,
            Self::C => 2,
            Self::D => 3,
        }
    }

    /// Which of the root bus's four lines (0 to 3) the pin of `device` is wired to: each device
    /// starts one further (PCI-to-PCI Bridge Architecture 1.2, table 9-1), so that neighbours
    /// share as little as possible.
    #[must_use]
    pub fn line(self, device: u8) -> u8 {
        (self.index() + device % 4) % 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_name_pins() {
        for (register, pin) in [(0, None), (1, Some(Pin::A)), (4, Some(Pin::D)), (5, None)] {
            assert_eq!(Pin::from_register(register), pin);
            assert_eq!(pin.map_or(register, Pin::register), register);
        }
    }

    #[test]
    fn neighbours_use_different_lines() {
        assert_eq!(
            [0, 1, 2, 3, 4, 31].map(|device| Pin::A.line(device)),
            [0, 1, 2, 3, 0, 3]
        );
        assert_eq!(Pin::D.line(31), 2);
    }
}
