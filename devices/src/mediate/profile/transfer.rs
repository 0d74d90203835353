// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A checked transfer: its registers.

use std::ops::RangeInclusive;

use super::direction::Direction;
use super::format::Otherwise;

/// The registers with addresses.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Addresses {
    /// Which of the two is in memory depends on the direction.
    Ends { source: usize, destination: usize },
    /// One is always in memory, the other, if there is one, never.
    Sides {
        memory: usize,
        device: Option<usize>,
    },
}

/// Where the direction comes from.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Directed {
    Fixed(Direction),
    Bits {
        register: usize,
        mask: u64,
        to_memory: u64,
        from_memory: u64,
    },
}

/// Where the length comes from.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Length {
    Fixed(u64),
    /// The bits of `mask`, shifted down, plus `bias`, times `unit`.
    Bits {
        register: usize,
        mask: u64,
        unit: u64,
        bias: u64,
    },
}

/// Bits of a register with a value that means something.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Bits {
    pub register: usize,
    pub mask: u64,
    pub value: u64,
}

#[derive(Clone, Debug)]
pub(in super::super) struct Transfer {
    pub name: String,
    pub addresses: Addresses,
    pub directed: Directed,
    pub length: Length,
    pub start: Bits,
    pub otherwise: Otherwise,
    /// `None` if the device keeps its own copy of the registers from the start on.
    pub busy: Option<Bits>,
    /// The register that shows a refusal.
    pub status: usize,
    /// What the device gets before the start, in this order: runs of registers, of [`RUN`](super::RUN) at most.
    pub programmed: Vec<Vec<usize>>,
    pub max_length: u64,
    /// The last address that the device can reach.
    pub address_mask: u64,
    /// Power of two that addresses and lengths are multiples of.
    pub alignment: u64,
    /// Power of two whose multiples a transfer does not cross in memory.
    pub boundary: Option<u64>,
    /// The range of device addresses.
    pub window: Option<RangeInclusive<u64>>,
}
