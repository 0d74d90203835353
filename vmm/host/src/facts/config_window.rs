// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The place for the guest's memory-mapped PCI config space, in the host's address map.

use std::ops::Range;

use address::Hpa;
use iommufd_backend::{Entry, IoMem};

use crate::arch;

/// Bytes of config space: that of one bus.
pub const CONFIG_WINDOW_SIZE: u64 = 1 << 20;

/// Config space is below this address.
pub const CONFIG_WINDOW_LIMIT: Hpa = arch::CONFIG_WINDOW_LIMIT;

const LIMIT_4G: u64 = 1 << 32;

/// A place for config space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWindow {
    /// Its addresses.
    pub range: Range<Hpa>,
    /// Whether the host has its own config space there.
    pub is_hosts: bool,
}

impl ConfigWindow {
    /// The place in the host's `map`: where the host has its own config space, if a guest can be
    /// given so; else the highest MiB below [`CONFIG_WINDOW_LIMIT`] that the host uses for nothing;
    /// else the highest one that is in its root bridges' windows, as on machines without
    /// memory-mapped config space, with nothing in it. `bars` are those of the devices to pass
    /// through.
    #[must_use]
    pub fn find(map: &IoMem, bars: &[Range<Hpa>]) -> Option<Self> {
        let suits = |start: &Hpa| start.is_aligned(CONFIG_WINDOW_SIZE) && start.0 < LIMIT_4G;
        let own = map.ecam().map(|range| range.start).filter(suits);
        let start = own
            .or_else(|| free(map, bars, |_| true))
            .or_else(|| free(map, bars, |entry| !entry.is_root_window()))?;
        Some(Self {
            range: start..start + CONFIG_WINDOW_SIZE,
            is_hosts: own.is_some(),
        })
    }
}

/// The highest MiB below [`CONFIG_WINDOW_LIMIT`] that neither a BAR nor any line of the map touches that `counts`.
fn free(map: &IoMem, bars: &[Range<Hpa>], counts: impl Fn(&Entry) -> bool) -> Option<Hpa> {
    let lines = map.entries().iter().filter(|entry| counts(entry));
    let taken: Vec<_> = lines.map(|entry| &entry.range).chain(bars).collect();
    (1..CONFIG_WINDOW_LIMIT.0 / CONFIG_WINDOW_SIZE)
        .rev()
        .map(|number| Hpa(number * CONFIG_WINDOW_SIZE))
        .find(|start| {
            let end = *start + CONFIG_WINDOW_SIZE;
            !taken
                .iter()
                .any(|range| range.start < end && *start < range.end)
        })
}
