// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The verdict on each subject from a batch's output.

use std::collections::BTreeMap;

use super::script::{Start, back_key, marks, section, starts};
use super::subject::{Plan, Step, Subject, Work};
use super::table::{Aspect, Row};
use crate::cases::script;
use crate::guest;
use crate::machine::Outcome;
use crate::order::{self, Verdict};
use crate::shell::last_lines;
use crate::trace::{self, Event};

/// Lines of a section's output that a problem shows.
const SHOWN_LINES: usize = 60;

/// What the outside holds.
#[derive(Debug)]
pub struct Outside {
    /// Whether devices were handed back to the machine after each guest.
    pub handed_back: bool,
    /// Whether they are opened through VFIO groups.
    pub by_group: bool,
    /// SHA-256 of each disk at the start, after the first guest and after the second, by the number of its
    /// function in the batch.
    pub disks: BTreeMap<usize, [String; 3]>,
    /// SHA-256 of each disk's image in the end.
    pub left: BTreeMap<usize, String>,
    /// SHA-256 of what the server hands out, and of what it is to get back.
    pub served: [String; 2],
}

/// Judges one subject; `first_function` is the number of its first function in the batch.
pub fn judge(
    subjects: &[Subject],
    outside: &Outside,
    outcome: &Outcome,
    subject: usize,
    first_function: usize,
) -> Row {
    let events = trace::parse(&outcome.trace);
    let facts = script::facts(&outcome.output);
    let mut judge = Judge {
        subject: &subjects[subject],
        first_function,
        outside,
        facts: &facts,
        problems: Vec::new(),
    };
    for (number, start) in starts(subjects).into_iter().enumerate() {
        if start.subject != subject {
            continue;
        }
        let (begin, end) = marks(number);
        let before = judge.problems.len();
        let text = section(&outcome.output, start);
        let events = trace::between(&events, begin, end);
        match (text, events) {
            (Some(text), Some(events)) => judge.start(start, text, events),
            _ => judge.note(Aspect::End, "it never came to an end".into()),
        }
        if outside.handed_back
            && let Err(problem) = script::handed_back(&facts, &back_key(number))
        {
            judge.note(Aspect::Again, problem);
        }
        let found = judge.problems.len() > before;
        if let (true, Some((_, problem))) = (found, judge.problems.last_mut()) {
            let shown = last_lines(text.unwrap_or(&outcome.output), SHOWN_LINES);
            problem.push_str(&format!("\nEnd of the output of {start:?}:\n{shown}"));
        }
    }
    judge.images();
    judge.canary();
    judge.into_row()
}

struct Judge<'a> {
    subject: &'a Subject,
    first_function: usize,
    outside: &'a Outside,
    facts: &'a BTreeMap<&'a str, &'a str>,
    problems: Vec<(Aspect, String)>,
}

impl Judge<'_> {
    fn note(&mut self, aspect: Aspect, text: String) {
        self.problems.push((aspect, text));
    }

    fn expect(&mut self, holds: bool, aspect: Aspect, text: impl FnOnce() -> String) {
        if !holds {
            self.note(aspect, text());
        }
    }

    fn start(&mut self, start: Start, text: &str, events: &[Event]) {
        let own = script::facts(text);
        let guest = guest::facts(text);
        let status = if start.step == Step::Alone { "3" } else { "0" };
        let found = own.get("status").copied();
        self.expect(found == Some(status), Aspect::End, || {
            format!("pinvisor's status: {found:?}, not {status}")
        });
        self.left_clean(&own);
        match start.step {
            Step::Alone => self.refused(text),
            Step::First | Step::Again => {
                self.probed(&guest);
                self.worked(start.step, &guest);
                self.quiet_in_the_end(text, events);
            }
            Step::OutOfReach => self.warned(text, &guest),
        }
        if self.subject.plan == Plan::AloneThenTwice && start.step != Step::Alone {
            self.reset_together(text);
        }
    }

    fn left_clean(&mut self, facts: &BTreeMap<&str, &str>) {
        let count = |name| facts.get(name).copied();
        let (before, after) = (count("before_free"), count("after_free"));
        self.expect(before.is_some() && before == after, Aspect::End, || {
            format!("free hugepages: {before:?} before, {after:?} after")
        });
        let processes = count("processes");
        self.expect(processes == Some("0"), Aspect::End, || {
            format!("processes left: {processes:?}")
        });
    }

    /// The driver of every function.
    fn probed(&mut self, guest: &BTreeMap<&str, &str>) {
        let drivers: Vec<&str> = functions(guest).map(|function| function.driver).collect();
        let wanted: Vec<&str> = self.subject.functions.iter().map(|f| f.driver).collect();
        self.expect(drivers == wanted, Aspect::Probe, || {
            format!("drivers: {drivers:?}, not {wanted:?}")
        });
    }

    /// Disks, networks and interrupts.
    fn worked(&mut self, step: Step, guest: &BTreeMap<&str, &str>) {
        let (aspect, turn) = match step {
            Step::Again => (Aspect::Again, 1),
            _ => (Aspect::Work, 0),
        };
        let mut disks: Vec<String> = self
            .numbers(Work::Disk)
            .map(|number| {
                let hashes = &self.outside.disks[&number];
                format!("{} {}", hashes[turn], hashes[turn + 1])
            })
            .collect();
        let networks = vec![self.outside.served.join(" "); self.subject.count(Work::Network)];
        disks.sort_unstable();
        for (what, wanted) in [("disk-", disks), ("net-", networks)] {
            let mut found: Vec<&str> = with_prefix(guest, what).map(|(_, value)| value).collect();
            found.sort_unstable();
            self.expect(found == wanted, aspect, || {
                format!("{what}: {found:?}, not {wanted:?}")
            });
        }
        for (function, wanted) in functions(guest).zip(self.subject.functions) {
            let kind = wanted.interrupts.sysfs_word();
            self.expect(function.kind == kind && function.count > 0, aspect, || {
                format!("interrupts: {function:?}, not some of {kind}")
            });
        }
    }

    /// By the kernel's notes and by the device's own COMMAND.
    fn quiet_in_the_end(&mut self, text: &str, events: &[Event]) {
        if let [_] = self.subject.functions {
            let verdicts: Vec<Verdict> = order::notes(text).into_iter().map(order::judge).collect();
            self.expect(verdicts == [Verdict::QuietFirst], Aspect::End, || {
                format!("order of release: {verdicts:?}")
            });
            let notes = order::notes(text).concat();
            let by_group = order::has_all(&notes, &["close_group"]);
            self.expect(by_group == self.outside.by_group, Aspect::End, || {
                format!("opened through a group: {by_group}")
            });
        }
        for number in self.all_numbers() {
            let bdf = self.bdf(number).to_string();
            let function = trace::function(&bdf).unwrap_or(u16::MAX);
            let writes = trace::command_writes(events, function);
            let is_on = |value: &u32| value & 4 != 0;
            let (was_on, last) = (writes.iter().any(is_on), writes.last().copied());
            let is_quiet = was_on && last.is_some_and(|last| !is_on(&last));
            self.expect(is_quiet, Aspect::End, || {
                format!("{bdf} was bus master: {was_on}; its last COMMAND: {last:x?}")
            });
        }
    }

    /// One function of two in a slot: refused before memory is taken, and the other one named.
    fn refused(&mut self, text: &str) {
        let sibling = self.bdf(self.first_function + 1).to_string();
        let is_named = text
            .lines()
            .any(|line| line.contains("error[no-reset]:") && line.contains(&sibling));
        self.expect(is_named, Aspect::Work, || {
            format!("no error names {sibling}")
        });
        self.expect(!text.contains("extent gpa="), Aspect::Work, || {
            "memory was taken".into()
        });
    }

    fn reset_together(&mut self, text: &str) {
        for number in self.all_numbers() {
            let bdf = self.bdf(number).to_string();
            self.expect(was_reset(text, &bdf), Aspect::Again, || {
                format!("{bdf} was not reset")
            });
        }
    }

    /// A device of 32 bits and memory above 4 GiB: a warning that names it, a driver that gives up, an ordinary end.
    fn warned(&mut self, text: &str, guest: &BTreeMap<&str, &str>) {
        let bdf = self.bdf(self.first_function).to_string();
        let is_warned = text.lines().any(|line| {
            line.contains("warn:") && line.contains(&bdf) && line.contains("32 address bits")
        });
        self.expect(is_warned, Aspect::Work, || format!("no warning of {bdf}"));
        let interfaces: Vec<&str> = with_prefix(guest, "net-").map(|(_, value)| value).collect();
        self.expect(interfaces == ["not up"], Aspect::Work, || {
            format!("the driver did not give up: {interfaces:?}")
        });
        self.probed(guest);
    }

    fn images(&mut self) {
        for number in self.numbers(Work::Disk).collect::<Vec<_>>() {
            let (left, wanted) = (&self.outside.left[&number], &self.outside.disks[&number][2]);
            let is_right = left == wanted;
            self.expect(is_right, Aspect::Again, || {
                format!("disk image {number} in the end: {left}, not {wanted}")
            });
        }
    }

    fn canary(&mut self) {
        let facts = self.facts.iter();
        let found: Vec<_> = facts.filter(|(key, _)| key.starts_with("canary")).collect();
        let status = self.facts.get("watched").copied();
        self.expect(status == Some("0"), Aspect::Canary, || {
            format!("it ended with status {status:?}: {found:?}")
        });
    }

    fn bdf(&self, number: usize) -> &str {
        let key = format!("bdf_{number}");
        self.facts
            .get(key.as_str())
            .copied()
            .unwrap_or("no address")
    }

    fn all_numbers(&self) -> std::ops::Range<usize> {
        self.first_function..self.first_function + self.subject.functions.len()
    }

    fn numbers(&self, work: Work) -> impl Iterator<Item = usize> + use<'_> {
        let numbered = self.all_numbers().zip(self.subject.functions);
        numbered
            .filter(move |(_, function)| function.work == work)
            .map(|(number, _)| number)
    }

    fn into_row(self) -> Row {
        let mut kinds: Vec<&str> = Vec::new();
        for function in self.subject.functions {
            let name = function.interrupts.name();
            if !kinds.contains(&name) {
                kinds.push(name);
            }
        }
        let (work, interrupts, without): (_, _, &[Aspect]) = match self.subject.plan {
            Plan::Twice => (ordinary_work(self.subject), kinds.join(", "), &[]),
            Plan::AloneThenTwice => (
                "alone: refused, the sibling named; both: reset by their bus, disks",
                kinds.join(", "),
                &[],
            ),
            Plan::OutOfReach => (
                "nothing: warned of; the driver finds no memory below 4 GiB",
                "–".into(),
                &[Aspect::Again],
            ),
        };
        Row {
            name: self.subject.name,
            work,
            interrupts,
            without,
            problems: self.problems,
        }
    }
}

fn ordinary_work(subject: &Subject) -> &'static str {
    match (subject.count(Work::Disk), subject.count(Work::Network)) {
        (_, 0) => "disk",
        (0, _) => "network",
        _ => "disks and network",
    }
}

/// The guest's report of a function.
#[derive(Debug, Clone, Copy)]
struct SeenFunction<'a> {
    driver: &'a str,
    kind: &'a str,
    count: u64,
}

/// Functions in the order of their slots.
fn functions<'a>(guest: &'a BTreeMap<&'a str, &'a str>) -> impl Iterator<Item = SeenFunction<'a>> {
    with_prefix(guest, "function-").filter_map(|(_, value)| {
        let mut words = value.split(' ');
        Some(SeenFunction {
            driver: words.next()?,
            kind: words.next()?,
            count: words.next()?.parse().ok()?,
        })
    })
}

fn with_prefix<'a>(
    guest: &'a BTreeMap<&'a str, &'a str>,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    guest
        .iter()
        .map(|(key, value)| (*key, *value))
        .filter(move |(key, _)| key.starts_with(prefix))
}

/// Whether the kernel reset a function, by its own words (drivers/pci/pci.c).
fn was_reset(text: &str, bdf: &str) -> bool {
    text.lines()
        .any(|line| line.contains(bdf) && line.ends_with(": resetting"))
}

#[cfg(test)]
mod tests;
