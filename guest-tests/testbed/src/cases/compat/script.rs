// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Scripts of a batch for the test machine, and what they print.
//!
//! Each start of `pinvisor` prints a section, between lines `testbed: section NAME` and
//! `testbed: section end`.

use std::fmt::Write;

use super::subject::{Step, Subject, Work};
use crate::cases::script::{HAND_BACK, PRELUDE};
use crate::order;

/// Guest memory: with the single hugepages of a shaped pool, in some 64 pieces.
const GUEST_MIB: u32 = 256;

/// Seconds after which a guest is taken to hang.
const GUEST_LIMIT: u32 = 600;

/// One start of `pinvisor` for a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Index of the subject in its batch.
    pub subject: usize,
    /// What is done.
    pub step: Step,
}

impl Start {
    /// Name of its section.
    pub fn section(self) -> String {
        format!("{} {:?}", self.subject, self.step)
    }
}

/// Marks in QEMU's trace before and after start number `number` of the batch.
pub fn marks(number: usize) -> (u8, u8) {
    let begin = u8::try_from(16 + 2 * number).unwrap_or(u8::MAX - 1);
    (begin, begin + 1)
}

/// All starts of a batch, in order.
pub fn starts(subjects: &[Subject]) -> Vec<Start> {
    let indexed = subjects.iter().enumerate();
    indexed
        .flat_map(|(index, subject)| {
            let steps = subject.plan.steps().iter();
            steps.map(move |step| Start {
                subject: index,
                step: *step,
            })
        })
        .collect()
}

const FUNCTIONS: &str = r#"
# start BEGIN END SECTION INITRAMFS CMDLINE ARGUMENTS...: one run of pinvisor.
start() {
    begin=$1 end=$2 section=$3 initramfs=$4 cmdline=$5
    shift 5
    echo "testbed: section $section"
    say_hugepages before
    dmesg -c > /dev/null
    testbed-mark $begin
    timeout -k 10 @LIMIT@ pinvisor -v run "$@" --memory @MEMORY@M --kernel /tmp/kernel \
        --initramfs "/testbed/$initramfs" --cmdline "$cmdline" < /dev/null
    say status $?
    testbed-mark $end
"#;

const FUNCTIONS_END: &str = r#"
    say_hugepages after
    say_processes
    dmesg | grep -E 'resetting' | head -n 20
    echo "testbed: section end"
}
"#;

/// Key of what [`HAND_BACK`] finds after start number `number` of the batch.
pub fn back_key(number: usize) -> String {
    format!("back{number}")
}

/// What the test machine runs first: it gives all functions to vfio-pci, takes `steps`, and starts `/testbed/starts`
/// with memory shaped and watched.
pub fn outer(functions: usize, steps: &str, watch: &str) -> String {
    let mut script = String::from(PRELUDE);
    for number in 0..functions {
        // Writing to a string cannot fail.
        let _ = writeln!(script, "say bdf_{number} $TESTBED_BDF_{number}");
        let _ = writeln!(script, "testbed-bind $TESTBED_BDF_{number} || exit 1");
    }
    // From memory: the kernel is read again for every guest.
    script += "cp /testbed/kernel /tmp/kernel\n";
    script + steps + order::START + watch + " sh /testbed/starts\nsay watched $?\n"
}

/// What follows each start.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// The devices are handed back to the test machine.
    pub hands_back: bool,
    /// The test machine's own interface, behind all functions, sends meanwhile. Else others do all the time.
    pub listens: bool,
}

/// `/testbed/starts`: all starts of a batch.
pub fn inner(subjects: &[Subject], port: u16, accept: &str, ending: Ending) -> String {
    let mut script = [PRELUDE, FUNCTIONS, order::SHOW, FUNCTIONS_END, HAND_BACK]
        .concat()
        .replace("@LIMIT@", &GUEST_LIMIT.to_string())
        .replace("@MEMORY@", &GUEST_MIB.to_string());
    let mut first_function = vec![0];
    for subject in subjects {
        let last = first_function.last().copied().unwrap_or(0);
        first_function.push(last + subject.functions.len());
    }
    if ending.hands_back && ending.listens {
        let sender = first_function.last().copied().unwrap_or(0);
        let _ = writeln!(script, "listen $TESTBED_BDF_{sender}");
    }
    for (number, start) in starts(subjects).into_iter().enumerate() {
        let subject = &subjects[start.subject];
        let given = match start.step {
            Step::Alone => 1,
            _ => subject.functions.len(),
        };
        let first = first_function[start.subject];
        let devices: String = (first..first + given)
            .map(|function| format!(" --device $TESTBED_BDF_{function}"))
            .collect();
        let (begin, end) = marks(number);
        let cmdline = format!(
            "console=ttyS0 quiet panic=-1 port={port} disks={} nics={}",
            subject.count(Work::Disk),
            subject.count(Work::Network)
        );
        let (section, index) = (start.section(), start.subject);
        let _ = writeln!(
            script,
            "start {begin} {end} '{section}' initramfs{index} '{cmdline}' {accept}{devices}"
        );
        if ending.hands_back {
            let names = devices.replace("--device ", "");
            let _ = writeln!(script, "hand_back {}{names}", back_key(number));
        }
    }
    script
}

/// What a start printed.
pub fn section(output: &str, start: Start) -> Option<&str> {
    let (_, rest) = output.split_once(&format!("testbed: section {}\n", start.section()))?;
    rest.split("testbed: section end\n").next()
}

#[cfg(test)]
mod tests {
    use super::super::subject::{NETWORK, TOGETHER};
    use super::*;

    #[test]
    fn every_start_has_its_devices_and_marks() {
        let ending = Ending {
            hands_back: true,
            listens: true,
        };
        let script = inner(TOGETHER, 80, "--noiommu", ending);
        let starts: Vec<&str> = script
            .lines()
            .filter(|line| line.starts_with("start "))
            .collect();
        let expected = [
            "start 16 17 '0 Alone' initramfs0 'console=ttyS0 quiet panic=-1 port=80 disks=2 nics=0' --noiommu --device $TESTBED_BDF_0",
            "start 18 19 '0 First' initramfs0 'console=ttyS0 quiet panic=-1 port=80 disks=2 nics=0' --noiommu --device $TESTBED_BDF_0 --device $TESTBED_BDF_1",
        ];
        let back = "\nhand_back back1 $TESTBED_BDF_0 $TESTBED_BDF_1\n";
        assert!(script.contains(back) && script.contains("\nlisten $TESTBED_BDF_5\n"));
        assert_eq!(starts[..2], expected);
        assert_eq!(starts.len(), 5);
        assert!(starts[4].ends_with("BDF_2 --device $TESTBED_BDF_3 --device $TESTBED_BDF_4"));
    }

    #[test]
    fn sections_are_found_and_absent_ones_are_not() {
        let [first, again, ..] = starts(NETWORK)[..] else {
            unreachable!()
        };
        let output = "x\ntestbed: section 0 First\na\ntestbed: section end\nb\n";
        assert_eq!(section(output, first), Some("a\n"));
        assert_eq!(section(output, again), None);
    }
}
