// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What all engines did together.

use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use address::Gpa;
use spin::Mutex;
use stress_format::{Histogram, Landed, Totals};

/// Least bytes of a piece of RAM that is accounted for.
const PIECE: u64 = 2 << 20;
/// Most pieces.
const PIECES: usize = 512;

/// Counters that processors share.
#[derive(Debug)]
pub struct Tally {
    /// Transfers that ended.
    pub transfers: AtomicU64,
    /// Bytes that they moved.
    pub bytes: AtomicU64,
    /// Those with wrong data.
    pub mismatches: AtomicU64,
    /// Those that changed memory around their buffer.
    pub guard_hits: AtomicU64,
    /// Those whose interrupt did not come.
    pub lost_interrupts: AtomicU64,
    /// Devices' errors and transfers that did not end.
    pub failures: AtomicU64,
    /// TSC ticks with a transfer under way, summed over engines.
    busy: AtomicU64,
    latency: Mutex<Histogram>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    range: Range<Gpa>,
    bytes: AtomicU64,
}

impl Tally {
    /// All zero, with pieces of `extents`, which are sorted.
    #[must_use]
    pub fn new(extents: &[Range<Gpa>]) -> Self {
        let mut size = PIECE;
        let count = |size: u64| -> u64 {
            extents
                .iter()
                .map(|extent| (extent.end.0.div_ceil(size)) - extent.start.0 / size)
                .sum()
        };
        while count(size) > PIECES as u64 && size < 1 << 40 {
            size *= 2;
        }
        let pieces = extents.iter().flat_map(|extent| {
            (extent.start.0 / size..extent.end.0.div_ceil(size)).map(move |number| Piece {
                range: extent.start.max(Gpa(number * size))
                    ..extent.end.min(Gpa((number + 1) * size)),
                bytes: AtomicU64::new(0),
            })
        });
        Self {
            transfers: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            mismatches: AtomicU64::new(0),
            guard_hits: AtomicU64::new(0),
            lost_interrupts: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            latency: Mutex::new(Histogram::default()),
            pieces: pieces.collect(),
        }
    }

    /// Counts a transfer of `range`.
    pub fn ended(&self, range: &Range<Gpa>) {
        self.transfers.fetch_add(1, Relaxed);
        self.bytes.fetch_add(range.end - range.start, Relaxed);
        let first = self
            .pieces
            .partition_point(|piece| piece.range.end <= range.start);
        for piece in self.pieces.iter().skip(first) {
            let start = range.start.max(piece.range.start);
            let end = range.end.min(piece.range.end);
            if start >= end {
                break;
            }
            piece.bytes.fetch_add(end - start, Relaxed);
        }
    }

    /// Adds what an engine measured.
    pub fn measured(&self, latency: &Histogram, busy: u64) {
        self.latency.lock().merge(latency);
        self.busy.fetch_add(busy, Relaxed);
    }

    /// The totals, if the TSC has `ticks_per_ms`.
    #[must_use]
    pub fn totals(&self, ticks_per_ms: u64) -> Totals {
        let latency = self.latency.lock();
        let bytes = self.bytes.load(Relaxed);
        let busy = self.busy.load(Relaxed).max(1);
        let kb_s = u128::from(bytes) * u128::from(ticks_per_ms) / u128::from(busy);
        Totals {
            transfers: self.transfers.load(Relaxed),
            bytes,
            mismatches: self.mismatches.load(Relaxed),
            guard_hits: self.guard_hits.load(Relaxed),
            lost_interrupts: self.lost_interrupts.load(Relaxed),
            kb_s: u64::try_from(kb_s).unwrap_or(u64::MAX),
            p50: *latency.percentile(50).end(),
            p99: *latency.percentile(99).end(),
            max: latency.max(),
        }
    }

    /// The latencies.
    #[must_use]
    pub fn latency(&self) -> Histogram {
        self.latency.lock().clone()
    }

    /// The pieces of RAM that transfers touched, at most 512.
    pub fn landed(&self) -> impl Iterator<Item = Landed> {
        self.pieces
            .iter()
            .map(|piece| Landed {
                gpa: piece.range.start.0,
                len: piece.range.end - piece.range.start,
                bytes: piece.bytes.load(Relaxed),
            })
            .filter(|landed| landed.bytes > 0)
            .take(PIECES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn bytes_land_in_their_pieces() {
        let tally = Tally::new(&[Gpa(3 * MIB)..Gpa(7 * MIB), Gpa(32 * MIB)..Gpa(34 * MIB)]);
        tally.ended(&(Gpa(4 * MIB - 10)..Gpa(4 * MIB + 20)));
        tally.ended(&(Gpa(33 * MIB)..Gpa(33 * MIB + 5)));
        let landed: Vec<_> = tally.landed().map(|l| (l.gpa, l.len, l.bytes)).collect();
        assert_eq!(
            landed,
            [
                (3 * MIB, MIB, 10),
                (4 * MIB, 2 * MIB, 20),
                (32 * MIB, 2 * MIB, 5)
            ]
        );
        let totals = tally.totals(1000);
        assert_eq!((totals.transfers, totals.bytes), (2, 35));
    }

    #[test]
    fn a_lot_of_memory_has_large_pieces() {
        let tally = Tally::new(&[Gpa(0)..Gpa(64 << 30)]);
        assert_eq!(tally.pieces.len(), PIECES);
        assert_eq!(tally.pieces[1].range, Gpa(128 * MIB)..Gpa(256 * MIB));
    }

    #[test]
    fn throughput_is_of_the_busy_time() {
        let tally = Tally::new(&[Gpa(0)..Gpa(MIB)]);
        tally.ended(&(Gpa(0)..Gpa(5000)));
        let mut latency = Histogram::default();
        latency.add(500);
        tally.measured(&latency, 500);
        // 5000 bytes in half a millisecond.
        assert_eq!(tally.totals(1000).kb_s, 10_000);
        assert_eq!(tally.totals(1000).max, 500);
    }
}
