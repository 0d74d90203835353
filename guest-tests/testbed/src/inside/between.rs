// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What this machine does between the two lines that `linux-stress reads` prints before and after its reads, on this
//! machine or in a guest, each time that it reads.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};

use clap::Args;
use linux_stress::reads::{BEGIN, END, SILENCE};
use serde_json::{Value, json};

use super::start_piped;
use super::tracing::{Event, MARK, Tracing};
use crate::error::{AtPath, Error, Result};

/// What precedes the facts, which are JSON.
pub const FACTS: &str = "between: ";

/// Returns to user space; stores of the guest that end there; and the messages by which a monitor interrupts it.
const PROBES: &str = "r:reads/user kvm_arch_vcpu_ioctl_run\n\
                      p:reads/store complete_emulated_mmio\n\
                      p:reads/message kvm_send_userspace_msi\n";
/// Exits from the guest to KVM, of which there are many.
const EXITS: &str = "kvm/kvm_exit";
/// Changes of the task that runs, and interrupts, of which idle time follows.
const SWITCHES: &str = "sched/sched_switch";
const INTERRUPT: &str = "irq/irq_handler_entry";
const INTERRUPT_END: &str = "irq/irq_handler_exit";
/// Changes of entries of KVM's page tables.
const ENTRIES: &str = "kvmmmu/kvm_tdp_mmu_spte_changed";
/// Bits of such an entry (Linux arch/x86/kvm/mmu/spte.h): it is present; it is of a large page.
const PRESENT: u64 = 1 << 11;
const LARGE: u64 = 1 << 7;
/// The marks around the reads.
const BEGIN_MARK: &str = "begin";
const END_MARK: &str = "end";

/// How to measure.
#[derive(Clone, Copy, Debug, Args)]
pub struct Between {
    /// Count events, each of which takes time then.
    #[arg(long, value_enum, value_name = "WHAT")]
    trace: Option<Trace>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Trace {
    /// Exits to user space, and interrupts from there.
    User,
    /// Exits to KVM by their reason as well, and the pages that KVM has mapped.
    All,
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
    let entries = || Tracing::start("", &[ENTRIES], None);
    let mut mapping = match between.trace {
        Some(Trace::All) => Some(entries()?),
        _ => None,
    };
    let mut child = start_piped(program, arguments)?;
    let output = child.stdout.take().into_iter();
    let (mut reading, mut pages, mut has_read) = (None, BTreeMap::new(), false);
    for line in output.flat_map(|output| BufReader::new(output).lines()) {
        let line = line.at("read", program)?;
        let line = line.trim_end();
        if line.ends_with(BEGIN) {
            if let Some(mapping) = mapping.take() {
                pages = mapped(&mapping.end()?);
            }
            reading = Some(begin(between)?);
        } else if let (Some((_, words)), Some(reading)) = (line.split_once(END), reading.take()) {
            println!("{FACTS}{}", end(reading, words, &pages)?);
            has_read = true;
        } else {
            println!("{line}");
        }
    }
    let status = child.wait().at("wait for", program)?;
    match has_read {
        true => Ok(status.code().unwrap_or(128)),
        false => Err(Error::Usage(format!(
            "{program}: nothing was read ({status})"
        ))),
    }
}

fn begin(between: Between) -> Result<Tracing<'static>> {
    let events: &[&str] = match between.trace {
        None => &[SWITCHES, INTERRUPT, INTERRUPT_END],
        Some(Trace::User) => &[SWITCHES, INTERRUPT, INTERRUPT_END, "reads"],
        Some(Trace::All) => &[SWITCHES, INTERRUPT, INTERRUPT_END, "reads", EXITS],
    };
    let tracing = Tracing::start(PROBES, events, None)?;
    tracing.mark(BEGIN_MARK)?;
    Ok(tracing)
}

/// The facts, with `words` of the last line: `count=N depth=N pages=N ns=N`.
fn end(reading: Tracing<'_>, words: &str, pages: &BTreeMap<u32, u64>) -> Result<Value> {
    reading.mark(END_MARK)?;
    let counted = count(&reading.end()?);
    let numbers: BTreeMap<&str, u64> = words
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter_map(|(key, value)| Some((key, value.parse().ok()?)))
        .collect();
    let number = |key| numbers.get(key).copied().unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "a time")]
    let seconds = number("ns") as f64 / 1e9;
    Ok(json!({
        "count": number("count"), "depth": number("depth"), "read_pages": number("pages"), "seconds": seconds,
        // Around the reads nothing happens, except that a monitor may poll: then no time is idle.
        "idle_seconds": (counted.idle - (counted.span - seconds)).max(0.0),
        "user_exits": counted.user, "stores": counted.stores, "messages": counted.messages,
        "exits": counted.exits, "pages": pages,
    }))
}

/// What the notes say; times in seconds.
#[derive(Debug, Default, PartialEq)]
struct Counted {
    /// Returns to user space, stores among them, messages, and exits by their reason, up to half of the silence before the
    /// end: the line that marks it causes exits as well.
    user: u64,
    stores: u64,
    messages: u64,
    exits: BTreeMap<String, u64>,
    /// Between the marks: all, and idle time.
    span: f64,
    idle: f64,
}

fn count(notes: &str) -> Counted {
    let events: Vec<_> = notes.lines().filter_map(Event::parse).collect();
    let mark = |text| {
        let mark = events
            .iter()
            .find(|event| event.name == MARK && event.text == text);
        mark.map(|event| event.at)
    };
    let (begin, end) = (
        mark(BEGIN_MARK).unwrap_or(0.0),
        mark(END_MARK).unwrap_or(f64::MAX),
    );
    let mut counted = Counted {
        span: end - begin,
        ..Counted::default()
    };
    let mut idle = None;
    for event in events
        .iter()
        .filter(|event| (begin..end).contains(&event.at))
    {
        match event.idles() {
            Some(true) => idle = Some(event.at),
            Some(false) => counted.idle += idle.take().map_or(0.0, |from| event.at - from),
            None if event.at >= end - SILENCE.as_secs_f64() / 2.0 => {}
            None if event.name == "user" => counted.user += 1,
            None if event.name == "store" => counted.stores += 1,
            None if event.name == "message" => counted.messages += 1,
            None if event.name == "kvm_exit" => {
                let reason = word_after(event.text, "reason").unwrap_or("unknown");
                *counted.exits.entry(reason.to_owned()).or_default() += 1;
            }
            None => {}
        }
    }
    counted
}

/// Leaves of KVM's page table by their level: 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB.
fn mapped(notes: &str) -> BTreeMap<u32, u64> {
    let mut entries = BTreeMap::new();
    for event in notes.lines().filter_map(Event::parse) {
        let hex = |name| u64::from_str_radix(word_after(event.text, name)?, 16).ok();
        let level = word_after(event.text, "level").and_then(|level| level.parse::<u32>().ok());
        if let (Some(gfn), Some(level), Some(entry)) = (hex("gfn"), level, hex("new_spte")) {
            let is_leaf = entry & PRESENT != 0 && (level == 1 || entry & LARGE != 0);
            entries.insert((gfn, level), is_leaf);
        }
    }
    let mut leaves = BTreeMap::new();
    for ((_, level), _) in entries.into_iter().filter(|(_, is_leaf)| *is_leaf) {
        *leaves.entry(level).or_default() += 1;
    }
    leaves
}

/// The word that follows `name` in `text`.
fn word_after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut words = text.split_whitespace();
    words.find(|word| *word == name).and(words.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_count_up_to_the_silence_at_the_end() {
        let notes = "# tracer: nop\n\
            testbed-7 [000] ..... 1.000000: tracing_mark_write: begin\n\
            vcpu0-10 [000] ..... 1.000001: kvm_exit: vcpu 0 reason interrupt rip 0xffff info1 0x0\n\
            vcpu0-10 [000] ..... 1.100000: kvm_exit: vcpu 0 reason hlt rip 0xffff info1 0x0\n\
            vcpu0-10 [000] ..... 1.125000: sched_switch: prev_comm=vcpu0 prev_pid=10 prev_prio=120 prev_state=S ==> next_comm=swapper/0 next_pid=0 next_prio=120\n\
            <idle>-0 [000] d.h1. 1.156250: irq_handler_entry: irq=24 name=vfio-msix[1](0000:01:00.0)\n\
            <idle>-0 [000] d.h1. 1.171875: irq_handler_exit: irq=24 ret=handled\n\
            <idle>-0 [000] ..... 1.187500: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=vcpu0 next_pid=10 next_prio=120\n\
            vcpu0-10 [000] ..... 1.200000: user: (kvm_vcpu_ioctl+0x4/0x10 <- kvm_arch_vcpu_ioctl_run)\n\
            vcpu0-10 [000] ..... 1.210000: store: (complete_emulated_mmio+0x4/0x10)\n\
            vcpu0-10 [000] ..... 1.220000: message: (kvm_send_userspace_msi+0x4/0x10)\n\
            vcpu0-10 [000] ..... 1.300000: kvm_exit: vcpu 0 reason hlt rip 0xffff info1 0x0\n\
            vcpu0-10 [000] ..... 1.480000: user: (kvm_vcpu_ioctl+0x4/0x10 <- kvm_arch_vcpu_ioctl_run)\n\
            testbed-7 [000] ..... 1.500000: tracing_mark_write: end\n";
        let exits = [("interrupt", 1), ("hlt", 2)].map(|(name, n)| (name.to_owned(), n));
        let expected = Counted {
            user: 1,
            stores: 1,
            messages: 1,
            exits: BTreeMap::from(exits),
            span: 0.5,
            idle: 0.046_875,
        };
        assert_eq!(count(notes), expected);
    }

    #[test]
    fn pages_are_the_leaves_that_remain() {
        let entry = |gfn: &str, level: u32, entry: &str| {
            format!(
                "vcpu0-10 [000] ..... 1.0: kvm_tdp_mmu_spte_changed: as id 0 gfn {gfn} level {level} old_spte 0 \
                 new_spte {entry}\n"
            )
        };
        let notes = [
            // A table, which a page of 2 MiB replaces.
            entry("200", 2, "800"),
            entry("200", 1, "800"),
            entry("200", 1, "0"),
            entry("200", 2, "880"),
            entry("400", 2, "880"),
            entry("7ff", 1, "800"),
        ];
        assert_eq!(mapped(&notes.concat()), BTreeMap::from([(1, 1), (2, 2)]));
    }
}
