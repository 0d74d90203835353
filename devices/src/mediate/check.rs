// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks whether a transfer, as the guest's registers have it, may be started.

use std::fmt;

use address::{BusAddr, Gpa, Hpa};
use thiserror::Error;

use super::profile::{Addresses, Directed, Direction, Length, Transfer};
use super::translate::{Translate, last_of};

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ToMemory => "to memory",
            Self::FromMemory => "from memory",
            Self::MemoryToMemory => "within memory",
        })
    }
}

/// Why a transfer was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Reason {
    /// An earlier refusal has stopped the function.
    #[error("the function is stopped")]
    Stopped,
    /// The direction bits have neither value.
    #[error("the direction value is undefined")]
    Direction,
    /// The length is 0 or too large.
    #[error("the length is not 1 to {limit:#x}")]
    Length {
        /// Most bytes that the device moves.
        limit: u64,
    },
    /// An address, or the length, is not a multiple of what the device can do.
    #[error("{value:#x} is not a multiple of {alignment}")]
    Alignment {
        /// The address or the length.
        value: u64,
        /// What it should be a multiple of.
        alignment: u64,
    },
    /// Not all of the device's side is inside the device.
    #[error("the transfer from device address {address:#x} on leaves the device's window")]
    Window {
        /// First device address.
        address: u64,
    },
    /// Addresses run past 2^64.
    #[error("the transfer from GPA {gpa} on passes the end of the address space")]
    WrapAround {
        /// First address.
        gpa: Gpa,
    },
    /// It does not begin in the guest's memory.
    #[error("GPA {gpa} is not guest memory")]
    NotMemory {
        /// First address.
        gpa: Gpa,
    },
    /// It leaves the guest's memory, or continues elsewhere in the host's.
    #[error("only {contiguous:#x} bytes from GPA {gpa} on are contiguous in host memory")]
    NotContiguous {
        /// First address.
        gpa: Gpa,
        /// Bytes that could be moved.
        contiguous: u64,
    },
    /// The device would not count on past a boundary.
    #[error("the transfer from HPA {hpa} on crosses a multiple of {boundary:#x}")]
    Boundary {
        /// First address.
        hpa: Hpa,
        /// What must not be crossed.
        boundary: u64,
    },
    /// The device's addresses do not reach that far.
    #[error(
        "the transfer from HPA {hpa} on exceeds the device's addresses, which end at {last:#x}"
    )]
    Unreachable {
        /// First address.
        hpa: Hpa,
        /// The last address that the device can give.
        last: u64,
    },
}

impl Reason {
    /// A short name of its kind, without what is particular.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Direction => "direction",
            Self::Length { .. } => "length",
            Self::Alignment { .. } => "alignment",
            Self::Window { .. } => "outside-window",
            Self::WrapAround { .. } => "wrap-around",
            Self::NotMemory { .. } => "not-memory",
            Self::NotContiguous { .. } => "not-contiguous",
            Self::Boundary { .. } => "boundary",
            Self::Unreachable { .. } => "unreachable",
        }
    }
}

/// A transfer that was refused: nothing of it reached the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("DMA of {length:#x} bytes refused: {reason}")]
pub struct Refusal {
    /// Which way; `None` if that is what was wrong, or not looked at.
    pub direction: Option<Direction>,
    /// Bytes, as far as 64 bits hold them.
    pub length: u64,
    /// Why.
    pub reason: Reason,
}

/// The registers whose values are not what the guest wrote, and what the device gets instead.
pub(super) type Replacements = [Option<(usize, BusAddr)>; 2];

impl Transfer {
    /// Checks the transfer that the registers' `values` describe.
    pub fn check(
        &self,
        values: &[u64],
        translate: &dyn Translate,
    ) -> Result<Replacements, Refusal> {
        let length = self.length.of(values);
        let direction = self.directed.of(values);
        self.check_sides(values, length, direction, translate)
            .map_err(|reason| Refusal {
                direction,
                length,
                reason,
            })
    }

    fn check_sides(
        &self,
        values: &[u64],
        length: u64,
        direction: Option<Direction>,
        translate: &dyn Translate,
    ) -> Result<Replacements, Reason> {
        let direction = direction.ok_or(Reason::Direction)?;
        let limit = self.max_length;
        if length == 0 || length > limit {
            return Err(Reason::Length { limit });
        }
        self.check_alignment(length)?;
        let (memory, device) = self.addresses.sides(direction);
        if let Some(device) = device {
            self.check_device_side(values[device], length)?;
        }
        let mut replacements = [None; 2];
        for (register, replacement) in memory.into_iter().zip(&mut replacements) {
            if let Some(register) = register {
                let gpa = Gpa(values[register]);
                let address = self.check_memory_side(gpa, length, translate)?;
                *replacement = Some((register, address));
            }
        }
        Ok(replacements)
    }

    fn check_alignment(&self, value: u64) -> Result<(), Reason> {
        let alignment = self.alignment;
        if value.is_multiple_of(alignment) {
            Ok(())
        } else {
            Err(Reason::Alignment { value, alignment })
        }
    }

    fn check_device_side(&self, address: u64, length: u64) -> Result<(), Reason> {
        self.check_alignment(address)?;
        let last = address.checked_add(length - 1);
        let inside = |window: &std::ops::RangeInclusive<u64>| {
            window.contains(&address) && last.is_some_and(|last| window.contains(&last))
        };
        if self.window.as_ref().is_some_and(inside) {
            Ok(())
        } else {
            Err(Reason::Window { address })
        }
    }

    fn check_memory_side(
        &self,
        gpa: Gpa,
        length: u64,
        translate: &dyn Translate,
    ) -> Result<BusAddr, Reason> {
        self.check_alignment(gpa.0)?;
        gpa.checked_add(length - 1)
            .ok_or(Reason::WrapAround { gpa })?;
        let run = translate.translate(gpa, length).filter(|run| run.len != 0);
        let run = run.ok_or(Reason::NotMemory { gpa })?;
        if run.len < length {
            let contiguous = run.len;
            return Err(Reason::NotContiguous { gpa, contiguous });
        }
        let hpa = run.hpa;
        let address = BusAddr::identity(hpa);
        let last = last_of(address, length).filter(|last| last.0 <= self.address_mask);
        let last = last.ok_or(Reason::Unreachable {
            hpa,
            last: self.address_mask,
        })?;
        match self.boundary {
            Some(boundary) if address.0 / boundary != last.0 / boundary => {
                Err(Reason::Boundary { hpa, boundary })
            }
            _ => Ok(address),
        }
    }
}

impl Length {
    /// Bytes, with the registers' `values`.
    pub fn of(self, values: &[u64]) -> u64 {
        match self {
            Self::Fixed(length) => length,
            Self::Bits {
                register,
                mask,
                unit,
                bias,
            } => {
                let count = (values[register] & mask) >> mask.trailing_zeros();
                count.saturating_add(bias).saturating_mul(unit)
            }
        }
    }
}

impl Directed {
    fn of(self, values: &[u64]) -> Option<Direction> {
        match self {
            Self::Fixed(direction) => Some(direction),
            Self::Bits {
                register,
                mask,
                to_memory,
                from_memory,
            } => match values[register] & mask {
                bits if bits == to_memory => Some(Direction::ToMemory),
                bits if bits == from_memory => Some(Direction::FromMemory),
                _ => None,
            },
        }
    }
}

impl Addresses {
    /// The registers with addresses in memory, and the one with the device's.
    fn sides(self, direction: Direction) -> ([Option<usize>; 2], Option<usize>) {
        match (self, direction) {
            (Self::Sides { memory, device }, _) => ([Some(memory), None], device),
            (
                Self::Ends {
                    source,
                    destination,
                },
                Direction::ToMemory,
            ) => ([Some(destination), None], Some(source)),
            (
                Self::Ends {
                    source,
                    destination,
                },
                Direction::FromMemory,
            ) => ([Some(source), None], Some(destination)),
            (
                Self::Ends {
                    source,
                    destination,
                },
                Direction::MemoryToMemory,
            ) => ([Some(source), Some(destination)], None),
        }
    }
}
