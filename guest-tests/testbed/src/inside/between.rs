// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What this machine does between the two lines that `linux-stress reads` prints before and after its reads, on this
//! machine or in a guest.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use clap::Args;
use linux_stress::reads::{BEGIN, END, SILENCE};
use serde_json::{Value, json};

use super::kvm_stats::{self, Stats};
use super::tracing::{Event, MARK, Tracing};
use super::{idle_ms, start_piped};
use crate::error::{AtPath, Error, Result};

/// What precedes the facts, which are JSON.
pub const FACTS: &str = "between: ";

/// Returns to user space; there is next to none of them.
const PROBES: &str = "r:reads/user kvm_arch_vcpu_ioctl_run";
/// Exits from the guest to KVM, of which there are many.
const EXITS: &str = "kvm/kvm_exit";
/// The mark at the end.
const END_MARK: &str = "end";

/// How to measure.
#[derive(Clone, Copy, Debug, Args)]
pub struct Between {
    /// Count the exits to KVM by their reason, which takes time itself.
    #[arg(long)]
    trace: bool,
}

/// What was so at the first line.
struct Begin {
    at: Instant,
    idle_ms: u64,
    stats: Stats,
    tracing: Tracing<'static>,
}

/// Runs the command of `words` and prints what happened between its lines as one line of JSON. Returns its exit
/// status.
///
/// # Errors
/// [`Error::Start`], [`Error::File`], [`Error::Usage`] if the lines did not come.
pub fn run(between: Between, words: &[String]) -> Result<i32> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Error::Usage("No command to run".into()));
    };
    let mut child = start_piped(program, arguments)?;
    let output = child.stdout.take().into_iter();
    let (mut begin, mut facts) = (None, None);
    for line in output.flat_map(|output| BufReader::new(output).lines()) {
        let line = line.at("read", program)?;
        let line = line.trim_end();
        if line.ends_with(BEGIN) {
            begin = Some(begin_of(child.id(), between)?);
        } else if let (Some((_, words)), Some(begin)) = (line.split_once(END), begin.take()) {
            facts = Some(end_of(child.id(), begin, words)?);
        } else {
            println!("{line}");
        }
    }
    let status = child.wait().at("wait for", program)?;
    let facts =
        facts.ok_or_else(|| Error::Usage(format!("{program}: nothing was read ({status})")))?;
    println!("{FACTS}{facts}");
    Ok(status.code().unwrap_or(128))
}

fn begin_of(process: u32, between: Between) -> Result<Begin> {
    let stats = kvm_stats::read(process)?;
    let events: &[&str] = match between.trace {
        true => &["reads", EXITS],
        false => &["reads"],
    };
    Ok(Begin {
        tracing: Tracing::start(PROBES, events, None)?,
        stats,
        at: Instant::now(),
        idle_ms: idle_ms(),
    })
}

/// The facts, with `words` of the last line: `count=N depth=N ns=N`.
fn end_of(process: u32, begin: Begin, words: &str) -> Result<Value> {
    let (span, idle) = (begin.at.elapsed(), idle_ms() - begin.idle_ms);
    begin.tracing.mark(END_MARK)?;
    let notes = begin.tracing.end()?;
    let stats = kvm_stats::read(process)?;
    let numbers: BTreeMap<&str, u64> = words
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter_map(|(key, value)| Some((key, value.parse().ok()?)))
        .collect();
    let number = |key| numbers.get(key).copied().unwrap_or(0);
    let reading = Duration::from_nanos(number("ns"));
    // Around the reads nothing happens.
    let idle = Duration::from_millis(idle).saturating_sub(span.saturating_sub(reading));
    let (user_exits, exits) = count(&notes);
    Ok(json!({
        "count": number("count"), "depth": number("depth"), "ns": number("ns"),
        "idle_ms": idle.as_millis(), "user_exits": user_exits, "exits": exits,
        "stats": kvm_stats::growth(&begin.stats, &stats),
        "pages": stats.iter().filter(|(name, _)| name.starts_with("pages_")).collect::<BTreeMap<_, _>>(),
    }))
}

/// Returns to user space and exits by their reason, up to half of the silence before the end: the line that marks it
/// causes exits as well.
fn count(notes: &str) -> (u64, BTreeMap<String, u64>) {
    let events = || notes.lines().filter_map(Event::parse);
    let end = events().find(|event| event.name == MARK && event.text == END_MARK);
    let end = end.map_or(f64::MAX, |event| event.at) - SILENCE.as_secs_f64() / 2.0;
    let (mut user, mut exits) = (0, BTreeMap::new());
    for event in events().take_while(|event| event.at < end) {
        match event.name {
            "user" => user += 1,
            "kvm_exit" => {
                let mut words = event.text.split_whitespace();
                let reason = words.find(|word| *word == "reason").and(words.next());
                *exits
                    .entry(reason.unwrap_or("unknown").to_owned())
                    .or_default() += 1;
            }
            _ => {}
        }
    }
    (user, exits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_count_up_to_the_silence_at_the_end() {
        let notes = "# tracer: nop\n\
            vcpu0-10 [000] ..... 1.000000: kvm_exit: vcpu 0 reason interrupt rip 0xffff info1 0x0\n\
            vcpu0-10 [000] ..... 1.100000: kvm_exit: vcpu 0 reason hlt rip 0xffff info1 0x0\n\
            vcpu0-10 [000] ..... 1.200000: user: (kvm_vcpu_ioctl+0x4/0x10 <- kvm_arch_vcpu_ioctl_run)\n\
            vcpu0-10 [000] ..... 1.300000: kvm_exit: vcpu 0 reason hlt rip 0xffff info1 0x0\n\
            vcpu0-10 [000] ..... 1.500000: user: (kvm_vcpu_ioctl+0x4/0x10 <- kvm_arch_vcpu_ioctl_run)\n\
            testbed-7 [000] ..... 1.500001: tracing_mark_write: end\n";
        let (user, exits) = count(notes);
        assert_eq!(user, 1);
        let expected = [("interrupt", 1), ("hlt", 2)].map(|(name, n)| (name.to_owned(), n));
        assert_eq!(exits, BTreeMap::from(expected));
    }
}
