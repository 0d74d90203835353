// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What all threads count together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use stress_format::{Histogram, Landed, Sample, Totals};

/// Bytes of a piece of RAM in [`Tally::landed`].
const PIECE: u64 = 2 << 20;

/// Most pieces that are reported.
const MAX_PIECES: usize = 512;

/// Counts of a run.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    transfers: AtomicU64,
    bytes: AtomicU64,
    mismatches: AtomicU64,
    guard_hits: AtomicU64,
    lost_interrupts: AtomicU64,
    tally: Mutex<Tally>,
}

/// What a thread counts on its own while it runs.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How long its transfers took.
    pub histogram: Histogram,
    /// Bytes moved by piece of RAM.
    landed: BTreeMap<u64, u64>,
}

impl Tally {
    /// Counts bytes that DMA moved to or from a guest-physical address.
    pub fn land(&mut self, gpa: u64, bytes: u64) {
        *self.landed.entry(gpa / PIECE).or_default() += bytes;
    }

    /// At most 512 pieces of RAM that DMA touched, those most in use.
    #[must_use]
    pub fn landed(&self) -> Vec<Landed> {
        let pieces = self.landed.iter().map(|(piece, bytes)| Landed {
            gpa: piece * PIECE,
            len: PIECE,
            bytes: *bytes,
        });
        let mut pieces: Vec<Landed> = pieces.collect();
        pieces.sort_by_key(|piece| std::cmp::Reverse(piece.bytes));
        pieces.truncate(MAX_PIECES);
        pieces.sort_by_key(|piece| piece.gpa);
        pieces
    }
}

impl Meter {
    /// All zero, from now on.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it starts a clock")]
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            transfers: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            mismatches: AtomicU64::new(0),
            guard_hits: AtomicU64::new(0),
            lost_interrupts: AtomicU64::new(0),
            tally: Mutex::default(),
        }
    }

    /// Counts an ended transfer.
    pub fn transfer(&self) {
        self.transfers.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that were moved.
    pub fn moved(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a transfer with wrong data.
    pub fn mismatch(&self) {
        self.mismatches.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts changed memory around a buffer.
    pub fn guard_hit(&self) {
        self.guard_hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an interrupt that did not come.
    pub fn lost_interrupt(&self) {
        self.lost_interrupts.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds what a thread counted on its own.
    pub fn add(&self, tally: &Tally) {
        let mut sum = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        sum.histogram.merge(&tally.histogram);
        for (piece, bytes) in &tally.landed {
            *sum.landed.entry(*piece).or_default() += bytes;
        }
    }

    /// What the threads that have ended counted on their own.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.clone()
    }

    /// How far it is.
    #[must_use]
    pub fn sample(&self) -> Sample {
        Sample {
            ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            transfers: self.transfers.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// The last record; the throughput is over all the time since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let sample = self.sample();
        let histogram = self.tally().histogram;
        Totals {
            transfers: sample.transfers,
            bytes: sample.bytes,
            mismatches: self.mismatches.load(Ordering::Relaxed),
            guard_hits: self.guard_hits.load(Ordering::Relaxed),
            lost_interrupts: self.lost_interrupts.load(Ordering::Relaxed),
            // Bytes in a millisecond are kilobytes in a second.
            kb_s: sample.bytes / sample.ms.max(1),
            p50: *histogram.percentile(50).start(),
            p99: *histogram.percentile(99).start(),
            max: histogram.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_used_pieces_are_reported_in_order() {
        let mut tally = Tally::default();
        for piece in 0..600_u64 {
            tally.land(piece * PIECE + 4096, 10 + piece);
            tally.land(piece * PIECE, 1);
        }
        let meter = Meter::new();
        meter.add(&tally);
        let landed = meter.tally().landed();
        assert_eq!(landed.len(), 512);
        assert_eq!(
            landed[0],
            Landed {
                gpa: 88 * PIECE,
                len: PIECE,
                bytes: 99
            }
        );
        assert!(landed.is_sorted_by_key(|piece| piece.gpa));
    }

    #[test]
    fn totals_are_what_was_counted() {
        let meter = Meter::new();
        meter.transfer();
        meter.moved(512);
        meter.mismatch();
        meter.guard_hit();
        meter.lost_interrupt();
        let mut tally = Tally::default();
        tally.histogram.add(9);
        meter.add(&tally);
        let totals = meter.totals();
        assert_eq!((totals.transfers, totals.bytes), (1, 512));
        assert_eq!((totals.p50, totals.p99, totals.max), (8, 8, 9));
        assert_eq!(
            (totals.mismatches, totals.guard_hits, totals.lost_interrupts),
            (1, 1, 1)
        );
    }
}
