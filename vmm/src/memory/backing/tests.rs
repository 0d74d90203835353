// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use host::MemoryLimit;

use super::taking::gaps;
use super::*;
use crate::arch::Overhead;
use crate::error::explain::{ExitCode, Explain, Limits};

#[test]
fn more_ordinary_memory_than_there_is_is_refused() {
    let available = |bytes| {
        Some(AvailableMemory {
            bytes,
            limit: MemoryLimit::Machine,
        })
    };
    assert!(check_available(64 << 20, available(64 << 20)).is_ok());
    assert!(check_available(64 << 20, None).is_ok());
    let error = check_available(64 << 20, available(63 << 20)).unwrap_err();
    assert_eq!(
        (error.id(), error.exit_code()),
        ("too-little-memory", ExitCode::Memory)
    );
    let text = error.to_string();
    assert!(
        text.contains("needs 64 MiB of ordinary host memory, but only 63 MiB are available"),
        "{text}"
    );
    assert!(
        error
            .hint(Limits::NONE)
            .unwrap()
            .contains("smaller --memory")
    );
}

#[test]
fn a_limit_on_locked_memory_is_seen_before_memory_is_pinned() {
    assert!(check_locked(2 << 30, None).is_ok());
    assert!(check_locked(8 << 20, Some(8 << 20)).is_ok());
    let error = check_locked(2 << 30, Some(8 << 20)).unwrap_err();
    assert_eq!(
        (error.id(), error.exit_code()),
        ("locked-memory", ExitCode::Memory)
    );
    let text = error.to_string();
    assert!(
        text.contains("needs 2 GiB of locked memory, but the limit of this process is 8 MiB"),
        "{text}"
    );
    let hint = error.hint(Limits::NONE).unwrap();
    assert!(hint.contains("ulimit -l 2097152 or more"), "{hint}");
}

#[test]
fn steps_and_gaps_leave_nothing_out() {
    let found: Vec<_> = steps(10, 4).collect();
    assert_eq!(found, [0..4, 4..8, 8..10]);
    assert_eq!(steps(0, 4).count(), 0);
    assert_eq!(gaps(&[1, 2, 5], 0..8), [0..1, 3..5, 6..8]);
    assert_eq!(gaps(&[5, 6], 4..8), [4..5, 7..8]);
    assert_eq!(gaps(&[0, 1, 2], 0..3), []);
    assert_eq!(gaps(&[], 0..2), [0..2]);
}

#[test]
fn pages_that_devices_do_not_reach_are_missing() {
    let choice = Choice {
        pinned: 9,
        kept: (0..4).collect(),
        chosen: Overhead::default(),
        naive: Overhead::default(),
        placed: true,
        most: 127,
        safe_pages: None,
    };
    assert!(check_reached(&choice, 4).is_ok());
    let error = check_reached(&choice, 5).unwrap_err().to_string();
    assert!(
        error.contains("needs 5") && error.contains("of the 9"),
        "{error}"
    );
}
