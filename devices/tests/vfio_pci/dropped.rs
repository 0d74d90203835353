// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the log has of writes to config space that do not reach the device.

use std::cell::RefCell;
use std::sync::Once;

use devices_testing::DeviceImage;
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::Bench;

thread_local! {
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what each thread logs.
struct Collector;

impl Log for Collector {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = (record.level(), record.args().to_string());
        LINES.with_borrow_mut(|lines| lines.push(line));
    }

    fn flush(&self) {}
}

/// What `bench` logs when it writes `data` at `offset`.
fn logged(bench: &mut Bench, offset: u16, data: &[u8]) -> Vec<(Level, String)> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Collector).unwrap();
        log::set_max_level(LevelFilter::Info);
    });
    LINES.take();
    bench.write(offset, data);
    LINES.take()
}

#[test]
fn what_is_dropped_is_logged_once() {
    let mut express = [0; 0x3a];
    (express[0], express[6]) = (2, 0x10);
    let image = DeviceImage::new("dropped", 4096)
        .capability(0x40, 0x10, &express)
        // SR-IOV, which the guest does not see.
        .extended(0x100, 0x10, 0x140, &[0; 0x3c])
        .extended(0x140, 0x03, 0, &[0; 8]);
    let mut bench = Bench::new(image);
    let mut check = |offset, data: &[u8], wanted: Option<(Level, &str)>| {
        let lines = logged(&mut bench, offset, data);
        let found: Vec<_> = lines.iter().map(|(level, _)| *level).collect();
        let levels: Vec<_> = wanted.iter().map(|(level, _)| *level).collect();
        assert_eq!(found, levels, "{offset:#x}: {lines:?}");
        for ((_, line), (_, words)) in lines.iter().zip(wanted) {
            assert!(line.contains(words), "{line}");
        }
    };
    check(
        0x108,
        &[1, 0],
        Some((Level::Warn, "0x108: the guest's write to a hidden")),
    );
    check(0x108, &[1, 0], None);
    // Device Control: relaxed ordering and the payload's size pass, extended tags do not.
    check(0x48, &[0x30, 0], None);
    check(
        0x48,
        &[0x30, 1],
        Some((
            Level::Info,
            "0x48: the guest's write does not change bits 0x100",
        )),
    );
    check(0x48, &[0x30, 1], None);
    check(0x144, &[0; 4], None);
    check(0x144, &[0, 0, 7, 0], Some((Level::Info, "bits 0x70000")));
    check(0x00, &[0x34, 0x12], None);
    check(0x00, &[0; 2], Some((Level::Info, "0x0: ")));
    check(0x90, &[0xff; 4], None);
    assert_eq!(bench.witness.config(0x90..0x94), [0xff; 4], "a gap");
}
