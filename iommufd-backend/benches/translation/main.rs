// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Translations, and building the table: against the maps that others use.
//!
//! Criterion reports each contender for itself. The table of ratios at the end comes from separate
//! measurements, in which every contender takes turns with its reference, so that what else runs on
//! the machine falls on both.

#![expect(clippy::unwrap_used, reason = "a benchmark on data of its own")]

mod building;
mod contenders;
mod layout;
mod ratios;
mod spdk;

use std::time::Duration;

use criterion::Criterion;

use contenders::Contender;

fn main() {
    let groups = contenders::groups();
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
        .configure_from_args();
    for (name, contenders) in &groups {
        run(&mut criterion, name, contenders);
    }
    building::run(&mut criterion);
    criterion.final_summary();
    // `cargo test` and filters have no use for it.
    if std::env::args().any(|arg| arg == "--bench") {
        ratios::print(&groups);
        building::print();
    }
}

fn run(criterion: &mut Criterion, group: &str, contenders: &[Contender]) {
    let mut group = criterion.benchmark_group(group);
    for contender in contenders {
        let keys = contender.keys.len() as u64;
        group.throughput(criterion::Throughput::Elements(keys));
        group.bench_function(format!("{}/throughput", contender.name), |b| {
            b.iter(|| (contender.independent)(&contender.keys));
        });
        group.bench_function(format!("{}/latency", contender.name), |b| {
            b.iter(|| (contender.dependent)(&contender.keys));
        });
    }
    group.finish();
}
