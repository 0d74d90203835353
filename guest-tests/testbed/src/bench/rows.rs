// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The table: ratios of figures from one boot of the test machine, and their targets.

use serde_json::{Value, json};

use super::monitor::Monitor;
use super::script::Facts;

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    what: String,
    value: Option<f64>,
    unit: &'static str,
    /// At most this; `None` where a figure is only reported.
    most: Option<f64>,
}

impl Row {
    /// A line with a target.
    pub fn new(what: impl Into<String>, value: Option<f64>, unit: &'static str, most: f64) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
            most: Some(most),
        }
    }

    /// A line without one.
    pub fn reported(what: impl Into<String>, value: Option<f64>, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
            most: None,
        }
    }

    /// The line about a mediated transfer: its instructions, and those of its stores if they are passed on.
    pub fn mediated(costs: Option<(u64, u64)>) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "some ten thousand instructions")]
        let ratio = costs.map(|(transfer, stores)| transfer as f64 / stores as f64);
        let what = "one mediated transfer, against its stores passed on unchecked";
        Self::new(what, ratio, "x", 1.1)
    }

    /// Whether the target is met; `None` without one.
    pub fn is_met(&self) -> Option<bool> {
        self.most
            .map(|most| self.value.is_some_and(|value| value <= most))
    }

    /// The line as JSON.
    pub fn json(&self) -> Value {
        json!({
            "what": self.what, "value": self.value, "unit": self.unit, "most": self.most, "met": self.is_met(),
        })
    }
}

/// The rows of boots that counted instructions, and of a program of `size` bytes.
pub fn rows(counted: &Facts, size: u64) -> Vec<Row> {
    let mut rows = against_peers(counted);
    rows.extend(counts(counted));
    #[expect(clippy::cast_precision_loss, reason = "the size of a program")]
    let mib = size as f64 / f64::from(1 << 20);
    rows.push(Row::new(
        "program, static and stripped",
        Some(mib),
        "MiB",
        4.0,
    ));
    rows.push(placing(counted));
    rows
}

fn ratio(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? / b?)
}

/// Own costs against those of the other monitors that were measured.
fn against_peers(counted: &Facts) -> Vec<Row> {
    let own = |monitor| own_cost(counted, monitor, &[]);
    let peers = [
        (Monitor::Microvm, 0.5),
        (Monitor::Firecracker, 0.9),
        (Monitor::CloudHypervisor, 0.8),
    ];
    let measured = peers
        .into_iter()
        .filter(|(peer, _)| counted.contains_key(peer.name()));
    measured
        .map(|(peer, most)| {
            let what = format!("own cost, no device, against {}", peer.name());
            Row::new(what, ratio(own(Monitor::Pinvisor), own(peer)), "x", most)
        })
        .collect()
}

/// What Pinvisor's own boots took.
fn counts(counted: &Facts) -> [Row; 6] {
    let (none, nvme) = (Monitor::Pinvisor, Monitor::PinvisorNvme);
    let traced = |key| median(counted, none, &["trace", key]);
    let waiting = median(counted, nvme, &["trace", "idle_s"]).map(|seconds| seconds * 10.0);
    let memory = median(counted, nvme, &["memory_kib"]).map(|kib| kib / 1024.0);
    let nvme_own = own_cost(counted, nvme, &["clearing_s"]);
    let to_init = median(counted, none, &["init_ns"]).map(|ns| ns / 1e9);
    [
        Row::new(
            "exits to user space until init, no device",
            traced("exits"),
            "",
            300.0,
        ),
        Row::new(
            "system calls until init, no device",
            traced("calls"),
            "",
            600.0,
        ),
        Row::new(
            "one NVMe: waiting in all, in resets of 100 ms",
            waiting,
            "",
            3.3,
        ),
        Row::new(
            "own cost, one NVMe against no device, without clearing",
            ratio(nvme_own, own_cost(counted, none, &[])),
            "x",
            1.2,
        ),
        Row::new(
            "last exit of the guest to the monitor's end, of exec to init",
            ratio(traced("end_s"), to_init),
            "x",
            0.05,
        ),
        Row::new(
            "memory without guest RAM, one NVMe, with the keeper",
            memory,
            "MiB",
            2.4,
        ),
    ]
}

/// What it takes to pin 1 GiB, ask where it is, plan and map it, against clearing it, 8 bytes with each instruction.
fn placing(counted: &Facts) -> Row {
    let traced = |key| median(counted, Monitor::PinvisorGib, &["trace", key]);
    let value = ratio(traced("placing_s"), traced("clearing_s"));
    Row::new(
        "pin, query, plan and map 1 GiB, against clearing it",
        value,
        "x",
        0.02,
    )
}

/// Times, which have no targets.
pub fn against_time(times: &Facts) -> Vec<Row> {
    let microvm = median(times, Monitor::Microvm, &["init_ns"]);
    let pinvisor = [
        ("no device", Monitor::Pinvisor),
        ("one NVMe", Monitor::PinvisorNvme),
    ];
    let rows = pinvisor.into_iter().map(move |(name, monitor)| {
        let what = format!("time from exec to init, {name}, against qemu-microvm");
        Row::reported(
            what,
            ratio(median(times, monitor, &["init_ns"]), microvm),
            "x",
        )
    });
    rows.filter(|row| row.value.is_some()).collect()
}

/// Seconds of what the monitor itself does: up to the first instruction of the guest and in exits until init, less
/// waiting and the times of `without`. On a machine whose clock counts instructions these are nanoseconds of them.
fn own_cost(boots: &Facts, monitor: Monitor, without: &[&str]) -> Option<f64> {
    let traced = |key: &str| median(boots, monitor, &["trace", key]);
    let less = without.iter().filter_map(|key| traced(key)).sum::<f64>();
    Some(traced("before_guest_s")? + traced("in_exits_s")? - traced("waiting_s")? - less)
}

/// The median of a figure, over the boots that have it.
fn median(boots: &Facts, monitor: Monitor, path: &[&str]) -> Option<f64> {
    let all = boots.get(monitor.name())?.iter();
    // Noting what a monitor does changes its times.
    let is_wanted = |boot: &&Value| boot.get("trace").is_some() == (path[0] == "trace");
    let mut values: Vec<f64> = all
        .filter(is_wanted)
        .filter_map(|boot| {
            path.iter()
                .try_fold(boot, |value, key| value.get(key))?
                .as_f64()
        })
        .collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The head of the table, in Markdown.
pub const HEAD: &str = "| what | figure | target | met |\n|---|---|---|---|\n";

/// The lines of `rows`, in Markdown.
pub fn lines(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let value = row
            .value
            .map_or("missing".to_owned(), |value| format!("{value:.2}"));
        let target = row.most.map_or(String::new(), |most| format!("≤ {most}"));
        let met = row
            .is_met()
            .map_or("", |met| if met { "yes" } else { "no" });
        text += &format!(
            "| {} | {value} {} | {target} | {met} |\n",
            row.what, row.unit
        );
    }
    text
}

/// What each monitor took, in Markdown.
pub fn boots(counted: &Facts, times: &Facts) -> String {
    let mut text = String::from(
        "\n| monitor | exec to init, ms | exec to gone, ms | instructions to init, 10^6 | to the end | waiting, ms \
         | own cost, 10^6 | exits | system calls | memory, KiB |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for monitor in [
        Monitor::Pinvisor,
        Monitor::PinvisorNvme,
        Monitor::Microvm,
        Monitor::Firecracker,
        Monitor::CloudHypervisor,
    ] {
        if !counted.contains_key(monitor.name()) {
            continue;
        }
        let figure = |boots, path: &[&str], scale: f64| {
            median(boots, monitor, path)
                .map_or("-".to_owned(), |value| format!("{:.0}", value / scale))
        };
        let own = own_cost(counted, monitor, &[])
            .map_or("-".to_owned(), |own| format!("{:.1}", own * 1e3));
        text += &format!("| {} |", monitor.name());
        for cell in [
            figure(times, &["init_ns"], 1e6),
            figure(times, &["gone_ns"], 1e6),
            figure(counted, &["init_ns"], 1e6),
            figure(counted, &["gone_ns"], 1e6),
            figure(counted, &["trace", "idle_s"], 1e-3),
            own,
            figure(counted, &["trace", "exits"], 1.0),
            figure(counted, &["trace", "calls"], 1.0),
            figure(counted, &["memory_kib"], 1.0),
        ] {
            text += &format!(" {cell} |");
        }
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(before: f64, exits: u64) -> Vec<Value> {
        vec![
            json!({"init_ns": 2e9, "memory_kib": 2048}),
            json!({"init_ns": 9e9, "trace": {"before_guest_s": before, "in_exits_s": 0.02, "waiting_s": 0.01,
                "clearing_s": 0.0, "exits": exits, "calls": 500, "end_s": 0.2}}),
        ]
    }

    #[test]
    fn a_row_that_misses_its_target_says_no() {
        let boots = [
            ("pinvisor", boot(0.09, 301)),
            ("pinvisor-nvme", boot(0.09, 301)),
            ("qemu-microvm", boot(0.25, 1000)),
        ];
        let counted = Facts::from(boots.map(|(name, boots)| (name.to_owned(), boots)));
        let mut rows = rows(&counted, 4 << 20);
        rows.extend(against_time(&counted));
        let met = |what: &str| {
            let row = rows.iter().find(|row| row.what.starts_with(what));
            row.unwrap().is_met()
        };
        assert_eq!(met("own cost, no device, against qemu"), Some(true));
        assert_eq!(met("exits"), Some(false));
        assert_eq!(met("system calls"), Some(true));
        assert_eq!(met("last exit"), Some(false));
        assert_eq!(met("program"), Some(true));
        assert_eq!(met("time from exec to init, no device"), None);
        let table = lines(&rows);
        assert!(
            table.contains("no device | 301.00  | ≤ 300 | no |"),
            "{table}"
        );
        assert!(!table.contains("firecracker"));
    }
}
