// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Counts of transfers and refusals.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::check::Refusal;

/// So many refusals are logged as warnings; of those after them, each whose number is a power of
/// two.
const WARNINGS: u64 = 16;

/// What a mediated function has done since it was made, resets or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Transfers that were started.
    pub started: u64,
    /// Transfers that were refused: not a byte of them reached the device's registers.
    pub refused: u64,
    /// How many of those for which reason, by [`Reason::name`](super::Reason::name).
    pub refused_for: BTreeMap<&'static str, u64>,
    /// Transfers that would have been started, had none been under way.
    pub busy: u64,
    /// Transfers whose registers the host could not write, or the device did not take. They were
    /// not started, except perhaps where the last store failed.
    pub failed: u64,
    /// Accesses to mediated registers, or through aliases and ports, of a shape that the device
    /// does not have, accesses to closed BARs, and stores to registers of `busy` and `status`:
    /// stores without effect, and loads of all-ones.
    pub ignored: u64,
    /// The last refusal.
    pub last_refusal: Option<Refusal>,
}

/// A view of a function's [`Statistics`]. Clones are the same function's.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Mutex<Statistics>>);

impl Counters {
    /// The numbers at this moment.
    #[must_use]
    pub fn read(&self) -> Statistics {
        self.lock().clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Statistics)) {
        change(&mut self.lock());
    }

    /// Counts and logs a refusal of `transfer` of `device`.
    pub(super) fn refuse(&self, device: &str, transfer: &str, refusal: Refusal) {
        let mut statistics = self.lock();
        statistics.refused += 1;
        let name = refusal.reason.name();
        *statistics.refused_for.entry(name).or_default() += 1;
        statistics.last_refusal = Some(refusal);
        match statistics.refused {
            ..WARNINGS => log::warn!("{device}: {transfer}: {refusal}"),
            count if count.is_power_of_two() => {
                log::warn!("{device}: {transfer}: {refusal} (refusal {count}; not all are logged)");
            }
            // A guest must not fill the log, whatever the log level.
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Statistics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
