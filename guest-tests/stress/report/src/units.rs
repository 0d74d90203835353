// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Numbers for people.

use address::units::{Hex, Memory};

use crate::report::Report;

/// Bytes of memory in binary units: `2 MiB`, `1.5 GiB`.
pub fn memory(bytes: u64) -> String {
    Memory(bytes).to_string()
}

/// Bytes that were moved, in decimal units, as throughput has them: `4.2 MB`.
pub fn moved(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let power = bytes.checked_ilog10().unwrap_or(0) / 3;
    scaled(
        bytes,
        10_u64.pow(3 * power),
        UNITS.get(power as usize).unwrap_or(&""),
    )
}

/// With one digit behind the point unless it is 0.
fn scaled(number: u64, unit: u64, name: &str) -> String {
    let tenths = u128::from(number) * 10 / u128::from(unit);
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        tenth => format!("{}.{tenth} {name}", tenths / 10),
    }
}

/// With a narrow space between groups of three digits.
pub fn grouped(number: u64) -> String {
    group(&number.to_string(), 3, '\u{202f}')
}

/// Hexadecimal with `_` between groups of four digits: `0x1_4000_0000`.
pub fn hex(address: u64) -> String {
    Hex(address).to_string()
}

fn group(digits: &str, every: usize, with: char) -> String {
    let mut grouped = String::with_capacity(2 * digits.len());
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(every) {
            grouped.push(with);
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 test`, `2 tests`.
pub fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { more })
}

/// `text`, or its first `max` characters and `…`.
pub fn short(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A latency in TSC ticks, or in time if the guest reported its TSC's frequency.
pub fn latency(report: &Report, ticks: u64) -> String {
    match report.ticks_per_us() {
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        Some(per_us) => micros(ticks as f64 / per_us),
        None => format!("{} ticks", grouped(ticks)),
    }
}

/// Seconds with one digit behind the point.
pub fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// Microseconds with about three digits.
pub fn micros(us: f64) -> String {
    match us {
        ..0.1 => format!("{:.0} ns", us * 1e3),
        ..10.0 => format!("{us:.2} µs"),
        ..100.0 => format!("{us:.1} µs"),
        ..1e3 => format!("{us:.0} µs"),
        ..1e6 => format!("{:.1} ms", us / 1e3),
        _ => format!("{:.1} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(moved(0), "0 B");
        assert_eq!(moved(4_250_000), "4.2 MB");
        assert_eq!(moved(u64::MAX), "18.4 EB");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(grouped(12), "12");
        assert_eq!(counted(1, "test", "tests"), "1 test");
        assert_eq!(counted(0, "test", "tests"), "0 tests");
        assert_eq!(short("äöü", 3), "äöü");
        assert_eq!(short("äöü", 2), "äö…");
        assert_eq!(micros(0.05), "50 ns");
        assert_eq!(micros(2.051), "2.05 µs");
        assert_eq!(micros(2_500.0), "2.5 ms");
    }
}
