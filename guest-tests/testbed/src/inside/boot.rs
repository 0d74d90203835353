// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One boot of a guest by any monitor, measured from outside of it: when its init runs, when the monitor is gone,
//! and what the monitor did meanwhile.
//!
//! With `trace`, the kernel notes when the monitor enters and leaves the guest (`KVM_RUN`), its system calls, the
//! clearing of hugepages and the first memslot. The notes cost time themselves, so times are measured without.

use std::fs;
use std::io::{BufRead, BufReader};
use std::time::Instant;

use clap::Args;

use super::start_piped;
use super::tracing::{Event, MARK, Tracing};
use crate::error::{AtPath, Error, Result};

/// What the guest's init prints first.
pub const INIT: &str = "guest: init";
/// What precedes the facts, which are JSON.
pub const FACTS: &str = "boot: ";

/// What is noted: the vCPU's ioctl and its end, system calls, and the clearing of hugepages and its end.
const PROBES: &str = "p:boot/enter kvm_arch_vcpu_ioctl_run\n\
                      r:boot/leave kvm_arch_vcpu_ioctl_run\n\
                      p:boot/call x64_sys_call\n\
                      p:boot/clear hugetlbfs_fallocate\n\
                      r:boot/cleared hugetlbfs_fallocate\n\
                      p:boot/slot kvm_arch_prepare_memory_region\n";

/// What is noted.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Trace {
    /// All.
    All,
    /// What happens to memory, which is next to nothing.
    Memory,
}

impl Trace {
    fn events(self) -> &'static [&'static str] {
        match self {
            Self::All => &["boot", "sched/sched_process_exec", "sched/sched_switch"],
            Self::Memory => &[
                "boot/clear",
                "boot/cleared",
                "boot/slot",
                "sched/sched_process_exec",
            ],
        }
    }
}

/// A mapping this large is guest memory, if its name does not show that.
const GUEST_MEMORY: u64 = 128 << 10;

/// How to measure.
#[derive(Clone, Copy, Debug, Args)]
pub struct Boot {
    /// Have the kernel note what the monitor does.
    #[arg(long, value_enum, value_name = "WHAT")]
    trace: Option<Trace>,
}

/// Runs the monitor of `words` and prints facts about its boot as one line of JSON. Returns its exit status.
///
/// # Errors
/// [`Error::Start`], [`Error::File`], [`Error::Usage`] if the guest's init never ran.
pub fn run(boot: Boot, words: &[String]) -> Result<i32> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Error::Usage("No command to run".into()));
    };
    let start = |trace: Trace| Tracing::start(PROBES, trace.events(), Some(std::process::id()));
    let tracing = boot.trace.map(start).transpose()?;
    // Without tracing it is one system call less.
    let mark = |text| {
        tracing
            .as_ref()
            .map_or(Ok(()), |tracing| tracing.mark(text))
    };
    let began = Instant::now();
    let mut child = start_piped(program, arguments)?;
    let output = child.stdout.take().into_iter();
    let mut init = None;
    for line in output.flat_map(|output| BufReader::new(output).split(b'\n')) {
        let line = line.at("read", program)?;
        if init.is_none() && String::from_utf8_lossy(&line).contains(INIT) {
            mark("init")?;
            init = Some((began.elapsed(), memory_kib(child.id())));
        }
    }
    let status = child.wait().at("wait for", program)?;
    mark("gone")?;
    let gone = began.elapsed();
    let (init, memory) =
        init.ok_or_else(|| Error::Usage(format!("{program}: no init ran ({status})")))?;
    let mut facts = serde_json::json!({
        "init_ns": nanoseconds(init), "gone_ns": nanoseconds(gone),
        "memory_kib": memory,
    });
    if let Some(tracing) = tracing {
        facts["trace"] = count(&tracing.end()?, std::process::id());
    }
    println!("{FACTS}{facts}");
    Ok(status.code().unwrap_or(128))
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Memory of process `monitor` and of those that it has started, in KiB, without guest memory: private pages, and
/// its part of those that it shares, of files too.
fn memory_kib(monitor: u32) -> u64 {
    let read = |name: String| fs::read_to_string(name).unwrap_or_default();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|process| {
            let is_child = || parent(&read(format!("/proc/{process}/status"))) == Some(monitor);
            *process == monitor || is_child()
        })
        .map(|process| without_guest_memory(&read(format!("/proc/{process}/smaps"))))
        .sum()
}

/// The parent of the process with this `status` (proc_pid_status(5)).
fn parent(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// `Pss` of all mappings in `smaps` but those of guest memory.
fn without_guest_memory(smaps: &str) -> u64 {
    let (mut total, mut is_guest, mut size) = (0, false, 0);
    for line in smaps.lines() {
        let number = |key: &str| -> Option<u64> {
            let value = line.strip_prefix(key)?;
            value.split_whitespace().next()?.parse().ok()
        };
        if let Some(kib) = number("Size:") {
            size = kib;
        } else if let Some(kib) = number("Pss:") {
            if !is_guest && size < GUEST_MEMORY {
                total += kib;
            }
        } else if line
            .split_whitespace()
            .next()
            .is_some_and(|word| word.contains('-'))
        {
            is_guest = line.contains("memfd:");
        }
    }
    total
}

/// What the notes say of the time from exec to the init's first line, and of the end. Of `own`, which is this process, only
/// marks and switches of tasks count. What precedes exec is not the monitor's.
fn count(notes: &str, own: u32) -> serde_json::Value {
    let own = format!("-{own}");
    let mut counts = Counts::default();
    for event in notes.lines().filter_map(Event::parse) {
        let what = match (event.name, event.idles()) {
            (MARK, _) => event.text,
            ("sched_process_exec", _) => "exec",
            (_, Some(true)) => "idle",
            (_, Some(false)) => "busy",
            _ if event.task.ends_with(&own) => continue,
            (name, None) => name,
        };
        counts.add(event.at, what);
    }
    counts.facts()
}

/// What is counted; times in seconds.
#[derive(Debug, Default)]
struct Counts {
    began: Option<f64>,
    first_entry: Option<f64>,
    /// When the guest was left, unless it runs.
    left: Option<f64>,
    last_left: f64,
    idle: Option<f64>,
    clearing: Option<f64>,
    first_clearing: Option<f64>,
    first_slot: Option<f64>,
    is_init: bool,
    exits: u64,
    calls: u64,
    in_exits: f64,
    waiting: f64,
    cleared: f64,
    end: f64,
    idles: Option<f64>,
    idle_in_all: f64,
    idle_at_end: f64,
}

impl Counts {
    fn add(&mut self, at: f64, what: &str) {
        match what {
            // The first one: a monitor may start further programs.
            "exec" => self.began = self.began.or(Some(at)),
            "init" => self.is_init = true,
            "gone" => self.end = at - self.last_left,
            "leave" => self.last_left = at,
            _ => {}
        }
        if self.began.is_none() {
            return;
        }
        self.add_idle(at, what);
        if self.is_init {
            return;
        }
        let is_outside = self.first_entry.is_none() || self.left.is_some();
        match what {
            "enter" => {
                self.first_entry = self.first_entry.or(Some(at));
                self.in_exits += self.left.take().map_or(0.0, |left| at - left);
            }
            "leave" => {
                self.left = Some(at);
                self.exits += 1;
            }
            "call" => self.calls += 1,
            "clear" => {
                self.clearing = Some(at);
                self.first_clearing = self.first_clearing.or(Some(at));
            }
            "slot" => self.first_slot = self.first_slot.or(Some(at)),
            "cleared" => self.cleared += self.clearing.take().map_or(0.0, |from| at - from),
            // A guest that waits is none of the monitor's cost.
            "idle" if is_outside => self.idle = Some(at),
            "busy" => self.waiting += self.idle.take().map_or(0.0, |from| at - from),
            _ => {}
        }
    }

    /// Idle time until the end, and the part of it since the guest was left last.
    fn add_idle(&mut self, at: f64, what: &str) {
        match what {
            "idle" => self.idles = Some(at),
            "busy" => {
                let idle = self.idles.take().map_or(0.0, |from| at - from);
                self.idle_in_all += idle;
                self.idle_at_end += idle;
            }
            "leave" => self.idle_at_end = 0.0,
            _ => {}
        }
    }

    fn facts(&self) -> serde_json::Value {
        let before = self.first_entry.zip(self.began);
        let memory = self.first_slot.zip(self.first_clearing);
        serde_json::json!({
            "exits": self.exits, "calls": self.calls,
            "before_guest_s": before.map(|(first, began)| first - began),
            "in_exits_s": self.in_exits, "waiting_s": self.waiting,
            "clearing_s": self.cleared, "end_s": self.end,
            "idle_s": self.idle_in_all, "end_idle_s": self.idle_at_end,
            "placing_s": memory.map(|(slot, clearing)| slot - clearing - self.cleared),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_counted_up_to_the_init() {
        let notes = "# tracer: nop\n\
            a-9 [000] ..... 0.900000: call: (x64_sys_call+0x4/0x10)\n\
            testbed-7 [000] ..... 0.910000: sched_switch: prev_comm=testbed prev_pid=7 prev_prio=120 prev_state=D ==> next_comm=swapper/0 next_pid=0 next_prio=120\n\
            <idle>-0 [000] ..... 0.930000: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=a next_pid=9 next_prio=120\n\
            a-b-9 [000] ..... 1.000000: sched_process_exec: filename=/tmp/bench/a-b pid=9 old_pid=9\n\
            testbed-7 [000] ..... 1.000001: call: (x64_sys_call+0x4/0x10)\n\
            a-b-9 [000] ..... 1.100000: call: (x64_sys_call+0x4/0x10)\n\
            a-b-9 [000] ..... 1.110000: sched_switch: prev_comm=a-b prev_pid=9 prev_prio=120 prev_state=S ==> next_comm=swapper/0 next_pid=0 next_prio=120\n\
            <idle>-0 [000] ..... 1.130000: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=a-b next_pid=9 next_prio=120\n\
            a-b-9 [000] ..... 1.200000: clear: (hugetlbfs_fallocate+0x4/0x10)\n\
            a-b-9 [000] ..... 1.300000: cleared: (vfs_fallocate+0x4/0x10 <- hugetlbfs_fallocate)\n\
            a-b-9 [000] ..... 1.350000: slot: (kvm_arch_prepare_memory_region+0x4/0x10)\n\
            vcpu0-10 [000] ..... 1.500000: enter: (kvm_arch_vcpu_ioctl_run+0x4/0x10)\n\
            vcpu0-10 [000] ..... 2.000000: leave: (kvm_vcpu_ioctl+0x4/0x10 <- kvm_arch_vcpu_ioctl_run)\n\
            vcpu0-10 [000] ..... 2.250000: enter: (kvm_arch_vcpu_ioctl_run+0x4/0x10)\n\
            keeper-11 [000] ..... 2.300000: sched_process_exec: filename=/tmp/bench/a-b pid=11 old_pid=11\n\
            testbed-7 [000] ..... 3.000000: tracing_mark_write: init\n\
            vcpu0-10 [000] ..... 3.100000: sched_switch: prev_comm=vcpu0 prev_pid=10 prev_prio=120 prev_state=S ==> next_comm=swapper/0 next_pid=0 next_prio=120\n\
            <idle>-0 [000] ..... 3.150000: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=vcpu0 next_pid=10 next_prio=120\n\
            vcpu0-10 [000] ..... 3.250000: leave: (kvm_vcpu_ioctl+0x4/0x10 <- kvm_arch_vcpu_ioctl_run)\n\
            a-b-9 [000] ..... 3.300000: sched_switch: prev_comm=a-b prev_pid=9 prev_prio=120 prev_state=S ==> next_comm=swapper/0 next_pid=0 next_prio=120\n\
            <idle>-0 [000] ..... 3.400000: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=a-b next_pid=9 next_prio=120\n\
            testbed-7 [000] ..... 3.750000: tracing_mark_write: gone\n";
        let facts = count(notes, 7);
        assert_eq!(
            (facts["exits"].as_u64(), facts["calls"].as_u64()),
            (Some(1), Some(1))
        );
        for (key, seconds) in [
            ("before_guest_s", 0.5),
            ("in_exits_s", 0.25),
            ("clearing_s", 0.1),
            ("waiting_s", 0.02),
            ("end_s", 0.5),
            ("idle_s", 0.17),
            ("end_idle_s", 0.1),
            ("placing_s", 0.05),
        ] {
            let found = facts[key].as_f64().unwrap();
            assert!((found - seconds).abs() < 1e-9, "{key}: {found}");
        }
    }

    /// A process sleeps while threads of the kernel come and go (trace_pipe of Linux 6.18, `set_event_pid` "0 31886").
    const SLEEP: &str = "\
              sh-31886   [000] .....   659.000000: sched_process_exec: filename=/bin/sh pid=31886 old_pid=31886
              sh-31886   [000] d..2.   659.120447: sched_switch: prev_comm=sh prev_pid=31886 prev_prio=120 prev_state=S ==> next_comm=swapper/0 next_pid=0 next_prio=120
          <idle>-0       [000] d..2.   659.128089: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=rcu_preempt next_pid=15 next_prio=120
     rcu_preempt-15      [000] d..2.   659.128097: sched_switch: prev_comm=rcu_preempt prev_pid=15 prev_prio=120 prev_state=I ==> next_comm=swapper/0 next_pid=0 next_prio=120
          <idle>-0       [000] d..2.   659.136091: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=rcu_preempt next_pid=15 next_prio=120
     rcu_preempt-15      [000] d..2.   659.136099: sched_switch: prev_comm=rcu_preempt prev_pid=15 prev_prio=120 prev_state=I ==> next_comm=swapper/0 next_pid=0 next_prio=120
          <idle>-0       [000] d..2.   659.144066: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=rcu_preempt next_pid=15 next_prio=120
     rcu_preempt-15      [000] d..2.   659.144074: sched_switch: prev_comm=rcu_preempt prev_pid=15 prev_prio=120 prev_state=I ==> next_comm=swapper/0 next_pid=0 next_prio=120
          <idle>-0       [000] d..2.   659.147288: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=rustc next_pid=31890 next_prio=115
";

    #[test]
    fn idle_time_around_other_tasks_is_waiting() {
        let waiting = |notes: &str, own| count(notes, own)["waiting_s"].as_f64().unwrap();
        // Whatever task waits, among them this process.
        for own in [7, 31886] {
            let found = waiting(SLEEP, own);
            assert!((found - 0.026_817).abs() < 1e-9, "{found}");
        }
        // What is noted of the process alone.
        let of_process = |line: &&str| line.contains("=31886 ");
        let alone: Vec<_> = SLEEP.lines().filter(of_process).collect();
        assert_eq!((alone.len(), waiting(&alone.join("\n"), 7)), (2, 0.0));
    }

    #[test]
    fn a_monitor_counts_with_what_it_has_started() {
        assert_eq!(parent("Name:\tx\nPPid:\t12\nTracerPid:\t0\n"), Some(12));
        assert_eq!(parent("Name:\tx\n"), None);
        assert!(memory_kib(std::process::id()) > 0);
    }

    #[test]
    fn guest_memory_does_not_count() {
        let smaps = "55-66 r--p 0 fe:00 1 /bin/pinvisor\nSize: 100 kB\nRss: 90 kB\nPss: 80 kB\n\
            77-88 rw-s 0 00:01 2 /memfd:guest-memory (deleted)\nSize: 1024 kB\nPss: 1024 kB\n\
            99-aa rw-p 0 00:00 0\nSize: 262144 kB\nPss: 9000 kB\n\
            bb-cc rw-p 0 00:00 0 [heap]\nSize: 132 kB\nPss: 20 kB\n";
        assert_eq!(without_guest_memory(smaps), 100);
    }
}
