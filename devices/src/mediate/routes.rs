// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Targets of accesses: aliases and ports.

use std::ops::Range;

use crate::pci::Placement;

use super::profile::{Alias, Port, Profile};

/// What an access reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Registers of a BAR at an offset.
    Registers { bar: u8, offset: u64 },
    /// The index of a port, from this byte on.
    Index { port: usize, byte: usize },
    /// Bytes of a BAR that is closed to the guest, and that no register of the profile has.
    Closed { bar: u8 },
    /// Nothing that the device has.
    Nothing,
}

/// The ways through a device's BARs, and what its ports have selected.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    aliases: Vec<Alias>,
    ports: Vec<(Port, u64)>,
    /// Bytes of each BAR.
    sizes: [u64; 6],
    /// The MSI-X table, whose entries are addresses too: the host's.
    forbidden: Option<Placement>,
    /// Of which BARs the guest reaches the profile's registers only.
    closed: [bool; 6],
    registers: Vec<(u8, Range<u64>)>,
}

impl Routes {
    pub fn new(profile: &Profile, sizes: [u64; 6], forbidden: Option<Placement>) -> Self {
        Self {
            closed: profile.closed_bars(forbidden.as_ref().map(|table| table.bar)),
            registers: profile
                .registers
                .iter()
                .flat_map(|register| {
                    let spans = register.spans.iter();
                    spans.map(|span| (register.bar, span.range()))
                })
                .collect(),
            aliases: profile.aliases.clone(),
            ports: profile
                .ports
                .iter()
                .cloned()
                .map(|port| (port, 0))
                .collect(),
            sizes,
            forbidden,
        }
    }

    /// Forgets what was selected.
    pub fn reset(&mut self) {
        for (_, index) in &mut self.ports {
            *index = 0;
        }
    }

    /// What `length` bytes at `offset` of `bar` are.
    pub fn target(&self, bar: u8, offset: u64, length: usize) -> Target {
        let target = self.behind_alias(bar, offset, length);
        let Target::Registers { bar, offset } = target else {
            return target;
        };
        let target = match self.behind_port(bar, offset, length) {
            // A port cannot select a port.
            Some(Target::Registers { bar, offset }) => {
                match self.behind_alias(bar, offset, length) {
                    Target::Registers { bar, offset }
                        if self.behind_port(bar, offset, length).is_none() =>
                    {
                        Target::Registers { bar, offset }
                    }
                    _ => Target::Nothing,
                }
            }
            Some(target) => target,
            None => target,
        };
        match target {
            Target::Registers { bar, offset } if !self.exists(bar, offset, length) => {
                Target::Nothing
            }
            Target::Registers { bar, offset } if !self.is_open(bar, offset, length) => {
                Target::Closed { bar }
            }
            target => target,
        }
    }

    /// Whether the guest may reach all of an access that a BAR takes.
    fn is_open(&self, bar: u8, offset: u64, length: usize) -> bool {
        if !self.closed[usize::from(bar)] {
            return true;
        }
        let access = offset..offset + length as u64;
        // Registers share no bytes.
        let named: u64 = self
            .registers
            .iter()
            .filter(|(other, _)| *other == bar)
            .map(|(_, range)| {
                let end = range.end.min(access.end);
                end.saturating_sub(range.start.max(access.start))
            })
            .sum();
        named == length as u64
    }

    /// Whether it is an access that a BAR takes.
    fn exists(&self, bar: u8, offset: u64, length: usize) -> bool {
        let forbidden = self
            .forbidden
            .as_ref()
            .is_some_and(|table| table.bar == bar && touches(&table.range, offset, length));
        let length = length as u64;
        let Some(end) = offset.checked_add(length) else {
            return false;
        };
        let shape = matches!(length, 1 | 2 | 4 | 8) && offset.is_multiple_of(length);
        let size = self.sizes.get(usize::from(bar)).copied().unwrap_or(0);
        shape && end <= size && !forbidden
    }

    fn behind_alias(&self, bar: u8, offset: u64, length: usize) -> Target {
        let here = |alias: &&Alias| alias.bar == bar && touches(&alias.range, offset, length);
        let Some(alias) = self.aliases.iter().find(here) else {
            return Target::Registers { bar, offset };
        };
        match inside(&alias.range, offset, length) {
            Some(at) => Target::Registers {
                bar: alias.to_bar,
                offset: alias.to_offset + at,
            },
            None => Target::Nothing,
        }
    }

    /// `None` if no port is there.
    fn behind_port(&self, bar: u8, offset: u64, length: usize) -> Option<Target> {
        for (number, (port, index)) in self.ports.iter().enumerate() {
            if port.index.bar == bar && touches(&port.index.range, offset, length) {
                let at = inside(&port.index.range, offset, length);
                let byte = at.and_then(|at| usize::try_from(at).ok());
                return Some(
                    byte.map_or(Target::Nothing, |byte| Target::Index { port: number, byte }),
                );
            }
            if port.data.bar == bar && touches(&port.data.range, offset, length) {
                let selected = inside(&port.data.range, offset, length).and_then(|at| {
                    let selected = index.checked_mul(port.stride)?;
                    selected.checked_add(port.to_offset)?.checked_add(at)
                });
                return Some(
                    selected.map_or(Target::Nothing, |offset| Target::Registers {
                        bar: port.to_bar,
                        offset,
                    }),
                );
            }
        }
        None
    }

    /// Reads the index of a port from `byte` on.
    pub fn read_index(&self, port: usize, byte: usize, data: &mut [u8]) {
        let index = self.ports.get(port).map_or(0, |(_, index)| *index);
        for (to, from) in data
            .iter_mut()
            .zip(index.to_le_bytes().into_iter().skip(byte))
        {
            *to = from;
        }
    }

    /// Writes the index of a port from `byte` on.
    pub fn write_index(&mut self, port: usize, byte: usize, data: &[u8]) {
        if let Some((_, index)) = self.ports.get_mut(port) {
            let mut bytes = index.to_le_bytes();
            for (to, from) in bytes.iter_mut().skip(byte).zip(data) {
                *to = *from;
            }
            *index = u64::from_le_bytes(bytes);
        }
    }
}

fn touches(range: &Range<u64>, offset: u64, length: usize) -> bool {
    offset < range.end && range.start < offset.saturating_add(length as u64)
}

fn inside(range: &Range<u64>, offset: u64, length: usize) -> Option<u64> {
    let end = offset.checked_add(length as u64)?;
    let at = offset.checked_sub(range.start)?;
    (end <= range.end).then_some(at)
}
