// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Building the table and taking it down: 1 GiB of 4 KiB pages, in one call or page by page.

use std::hint::black_box;
use std::time::Instant;

use address::{Hpa, Iova};
use amdv1::{Attributes, HeapTables, Table};
use criterion::{BatchSize, Criterion};

use crate::ratios::ratio;

const BASE: u64 = 1 << 30;
const PAGES: u64 = 1 << 18;
const PAGE: u64 = 4096;
/// Not congruent with the IOVA, so that every page has its own entry.
const HPA: u64 = (1 << 40) + PAGE;
const RW: Attributes = Attributes::all();

fn map_at_once(table: &mut Table<HeapTables>) {
    table.map(Iova(BASE), Hpa(HPA), PAGES * PAGE, RW).unwrap();
}

fn map_each(table: &mut Table<HeapTables>) {
    for offset in (0..PAGES).map(|page| page * PAGE) {
        table
            .map(Iova(BASE + offset), Hpa(HPA + offset), PAGE, RW)
            .unwrap();
    }
}

fn unmap_at_once(table: &mut Table<HeapTables>) {
    assert_eq!(table.unmap(Iova(BASE), PAGES * PAGE), Ok(PAGES * PAGE));
}

fn unmap_each(table: &mut Table<HeapTables>) {
    for offset in (0..PAGES).map(|page| page * PAGE) {
        assert_eq!(table.unmap(Iova(BASE + offset), PAGE), Ok(PAGE));
    }
}

/// An empty table whose memory has been used before, so that the kernel does not come into it.
fn warm() -> Table<HeapTables> {
    let mut table = Table::default();
    map_at_once(&mut table);
    table.clear();
    table
}

fn full() -> Table<HeapTables> {
    let mut table = warm();
    map_at_once(&mut table);
    table
}

struct Step {
    name: &'static str,
    start: fn() -> Table<HeapTables>,
    at_once: fn(&mut Table<HeapTables>),
    each: fn(&mut Table<HeapTables>),
}

const STEPS: [Step; 2] = [
    Step {
        name: "map",
        start: warm,
        at_once: map_at_once,
        each: map_each,
    },
    Step {
        name: "unmap",
        start: full,
        at_once: unmap_at_once,
        each: unmap_each,
    },
];

/// Criterion's view.
pub fn run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("building");
    group.sample_size(10);
    group.throughput(criterion::Throughput::Elements(PAGES));
    for step in STEPS {
        let Step {
            name,
            start,
            at_once,
            each,
        } = step;
        for (how, step) in [("at once", at_once), ("page by page", each)] {
            group.bench_function(format!("{name} {how}"), |b| {
                b.iter_batched_ref(start, step, BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}

/// How many times longer page by page takes.
pub fn print() {
    println!("\nTime for an entry page by page, as a multiple of the time in one run\n");
    println!("| | ratio | target | met |");
    println!("|---|---|---|---|");
    for Step {
        name,
        start,
        at_once,
        each,
    } in STEPS
    {
        let ratio = ratio(|| time(start, at_once), || time(start, each));
        let met = if ratio.median >= 3.0 { "yes" } else { "**no**" };
        println!("| {name} | {ratio} | ≥ 3 | {met} |");
    }
}

fn time(start: fn() -> Table<HeapTables>, step: fn(&mut Table<HeapTables>)) -> f64 {
    let mut table = start();
    let began = Instant::now();
    step(&mut table);
    let elapsed = began.elapsed();
    black_box(&table);
    elapsed.as_secs_f64()
}
