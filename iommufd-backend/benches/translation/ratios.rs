// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ratios of contenders that take turns.

use std::hint::black_box;
use std::time::Instant;

use crate::contenders::Contender;

/// Turns that each contender takes with its reference.
const ROUNDS: usize = 31;

/// Prints how much longer than the first of its group each contender takes.
pub fn print(groups: &[(&str, Vec<Contender>)]) {
    println!("\nTime of a lookup, as a multiple of the first of each group");
    println!("(median of {ROUNDS} turns; half of the turns lie between the numbers in brackets)\n");
    println!("| | throughput | latency | target | met |");
    println!("|---|---|---|---|---|");
    for (name, contenders) in groups {
        println!("| **{name}** | | | | |");
        let Some((reference, others)) = contenders.split_first() else {
            continue;
        };
        println!("| {} | 1 | 1 | | |", reference.name);
        for other in others {
            row(reference, other);
        }
    }
}

fn row(reference: &Contender, other: &Contender) {
    let independent = ratio(
        || time(&reference.independent, &reference.keys),
        || time(&other.independent, &other.keys),
    );
    let dependent = ratio(
        || time(&reference.dependent, &reference.keys),
        || time(&other.dependent, &other.keys),
    );
    let (mut targets, mut met) = (Vec::new(), true);
    for (what, ratio, target) in [
        ("throughput", independent.median, other.targets[0]),
        ("latency", dependent.median, other.targets[1]),
    ] {
        let Some(target) = target else { continue };
        // Negative: at least.
        let sign = if target < 0.0 { "≥" } else { "≤" };
        targets.push(format!("{what} {sign} {}", target.abs()));
        met &= ratio * target.signum() <= target;
    }
    let met = match (targets.is_empty(), met) {
        (true, _) => "",
        (false, true) => "yes",
        (false, false) => "**no**",
    };
    println!(
        "| {} | {independent} | {dependent} | {} | {met} |",
        other.name,
        targets.join(", ")
    );
}

/// Nanoseconds for a lookup, after a round for the caches.
fn time(lookups: &dyn Fn(&[u64]) -> u64, keys: &[u64]) -> f64 {
    black_box(lookups(keys));
    let start = Instant::now();
    black_box(lookups(keys));
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let ratio = start.elapsed().as_nanos() as f64 / keys.len() as f64;
    ratio
}

/// The distribution of a ratio.
pub struct Ratio {
    quartiles: [f64; 2],
    pub median: f64,
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [low, high] = self.quartiles;
        let digits = if self.median < 10.0 { 2 } else { 0 };
        write!(
            f,
            "{:.digits$} ({low:.digits$}–{high:.digits$})",
            self.median
        )
    }
}

/// How much longer `other` takes than `reference`, measured in turns.
pub fn ratio(mut reference: impl FnMut() -> f64, mut other: impl FnMut() -> f64) -> Ratio {
    let mut ratios: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let base = reference();
            other() / base
        })
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    Ratio {
        quartiles: [ratios[ROUNDS / 4], ratios[ROUNDS * 3 / 4]],
        median: ratios[ROUNDS / 2],
    }
}
