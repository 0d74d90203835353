// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Notes of the kernel's tracing (Linux Documentation/trace/ftrace.rst).

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{AtPath, Result};

const FOLDER: &str = "/sys/kernel/tracing";
/// The number of the idle task of every CPU.
const IDLE: u32 = 0;

/// Notes being taken.
#[derive(Debug)]
pub struct Tracing<'a> {
    events: &'a [&'a str],
}

impl<'a> Tracing<'a> {
    /// Defines `probes`, and notes `events` from now on: those of process `only` and of what it starts, if it is
    /// given, and of the idle task. A switch of tasks is noted if one of the two is among these (Linux,
    /// kernel/trace/trace_events.c, `event_filter_pid_sched_switch_probe_pre`). Without the idle task, the begin or
    /// the end of an idle time would be missing wherever a thread of the kernel ran before or after it.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File)
    pub fn start(probes: &str, events: &'a [&'a str], only: Option<u32>) -> Result<Self> {
        let processes = only.map_or(String::new(), |process| format!("{IDLE} {process}"));
        for (name, text) in [
            ("kprobe_events", probes),
            ("buffer_size_kb", "65536"),
            ("trace_clock", "mono"),
            ("set_event_pid", &processes),
            ("options/event-fork", "1"),
        ] {
            write(name, text)?;
        }
        for event in events {
            write(&format!("events/{event}/enable"), "1")?;
        }
        // Empties it.
        write("trace", "")?;
        Ok(Self { events })
    }

    /// Leaves a mark among the notes.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File)
    pub fn mark(&self, text: &str) -> Result<()> {
        write("trace_marker", text)
    }

    /// Returns all notes, and ends taking them.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File)
    pub fn end(self) -> Result<String> {
        for event in self.events {
            write(&format!("events/{event}/enable"), "0")?;
        }
        let notes = take()?;
        write("set_event_pid", "")?;
        write("kprobe_events", "")?;
        write("trace", "")?;
        Ok(notes)
    }
}

/// Takes all notes out. The file `trace`, which leaves them, starts at its begin again with each page that is read.
fn take() -> Result<String> {
    let path = Path::new(FOLDER).join("trace_pipe");
    let mut pipe = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .at("open", &path)?;
    let mut notes = Vec::new();
    match pipe.read_to_end(&mut notes) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error).at("read", &path),
        _ => Ok(String::from_utf8_lossy(&notes).into_owned()),
    }
}

fn write(name: &str, text: &str) -> Result<()> {
    let path = Path::new(FOLDER).join(name);
    fs::write(&path, text).at("write", &path)
}

/// The name of the event that a mark is.
pub const MARK: &str = "tracing_mark_write";

/// A note.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event<'a> {
    /// The name of the task that ran, and its number: `name-12`.
    pub task: &'a str,
    /// When, in seconds.
    pub at: f64,
    /// What happened.
    pub name: &'a str,
    /// The details, or a mark's text.
    pub text: &'a str,
}

impl<'a> Event<'a> {
    /// Whether this CPU has nothing to do from here on, or has something again; `None` if nothing changes. The kernel
    /// serves an interrupt that ends idle time as the idle task, before it switches to another.
    #[must_use]
    pub fn idles(&self) -> Option<bool> {
        let has = |number: &str| self.text.contains(&format!("{number}={IDLE} "));
        let is_idle_task = || self.task.ends_with(&format!(">-{IDLE}"));
        match self.name {
            "sched_switch" if has("next_pid") => Some(true),
            "sched_switch" if has("prev_pid") => Some(false),
            "irq_handler_entry" if is_idle_task() => Some(false),
            "irq_handler_exit" if is_idle_task() => Some(true),
            _ => None,
        }
    }

    /// Takes a line apart, such as ` name-12 [000] ..... 1.5: enter: (…)` or
    /// ` name-12 [000] ..... 1.5: tracing_mark_write: exec`.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (task, rest) = line.split_once(" [")?;
        let (head, rest) = rest.split_once(": ")?;
        let at = head.split_whitespace().next_back()?.parse().ok()?;
        let (name, text) = rest.split_once(": ")?;
        Some(Self {
            task: task.trim(),
            at,
            name,
            text: text.trim(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let event = Event::parse("  a-b-9  [000] d..1.  1.100000: call: (x64_sys_call+0x4/0x10)");
        let expected = Event {
            task: "a-b-9",
            at: 1.1,
            name: "call",
            text: "(x64_sys_call+0x4/0x10)",
        };
        assert_eq!(event, Some(expected));
        assert_eq!(event.unwrap().idles(), None);
        for (pids, idles) in [
            ("prev_pid=10 next_pid=0 next_prio=120", Some(true)),
            ("prev_pid=0 next_pid=10 next_prio=120", Some(false)),
            ("prev_pid=10 next_pid=20 next_prio=120", None),
        ] {
            let line = format!("a-9 [000] d..1. 1.1: sched_switch: prev_comm=a {pids}");
            assert_eq!(Event::parse(&line).unwrap().idles(), idles, "{pids}");
        }
        for (task, name, idles) in [
            ("<idle>-0", "irq_handler_entry", Some(false)),
            ("<idle>-0", "irq_handler_exit", Some(true)),
            ("a-9", "irq_handler_entry", None),
            ("a-10", "irq_handler_exit", None),
        ] {
            let line = format!("  {task} [000] d.h1. 1.1: {name}: irq=24 name=nvme0q1");
            assert_eq!(Event::parse(&line).unwrap().idles(), idles, "{line}");
        }
        let mark = Event::parse("x-7 [000] ..... 1.000000: tracing_mark_write: end\n");
        assert_eq!(mark.map(|mark| mark.text), Some("end"));
        for line in [
            "# tracer: nop",
            "",
            "CPU:0 [LOST 12 EVENTS]",
            "a [0] x: y: z",
        ] {
            assert_eq!(Event::parse(line), None, "{line}");
        }
    }
}
