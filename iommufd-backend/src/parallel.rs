// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Work on several devices at once: a reset waits 100 ms and more (PCI Express Base Specification, section 6.6.2),
//! and devices on different buses do not wait for each other, nor does anything else that has to wait.

use std::panic;
use std::thread::{self, Builder, ScopedJoinHandle};

/// Does `work` on each of `items` and returns the results in order. Each item but the last has a thread of its own,
/// unless the system has none left for it: the calling thread serves the rest, and a single item. A panic of `work`
/// is passed on.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let Some((last, others)) = items.split_last() else {
        return Vec::new();
    };
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = others
            .iter()
            .map(|item| Builder::new().spawn_scoped(scope, move || work(item)))
            .collect();
        let last = work(last);
        let others = others.iter().zip(threads);
        let mut results: Vec<_> = others
            .map(|(item, thread)| match thread.map(ScopedJoinHandle::join) {
                Ok(result) => result.unwrap_or_else(|panicked| panic::resume_unwind(panicked)),
                Err(_) => work(item),
            })
            .collect();
        results.push(last);
        results
    })
}

/// Does `work` on this thread, and `other` on one of its own meanwhile, or after it if the system has no thread left.
/// Returns the result of `work` when both are done. A panic is passed on.
pub fn meanwhile<R>(other: impl Fn() + Sync, work: impl FnOnce() -> R) -> R {
    thread::scope(|scope| {
        let thread = Builder::new().spawn_scoped(scope, &other);
        let result = work();
        match thread.map(ScopedJoinHandle::join) {
            Ok(done) => done.unwrap_or_else(|panicked| panic::resume_unwind(panicked)),
            Err(_) => other(),
        }
        result
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, Mutex};

    use super::*;

    #[test]
    fn all_items_are_served_at_once_and_in_order() {
        // Each waits for all others: one after the other they would never end.
        let all = Barrier::new(3);
        let doubled = in_parallel(&[1, 2, 3], |item| {
            all.wait();
            2 * item
        });
        assert_eq!(doubled, [2, 4, 6]);
        assert_eq!(in_parallel(&[] as &[u8], |item| *item), []);
    }

    #[test]
    fn both_are_done_at_once() {
        let both = Barrier::new(2);
        let other = Mutex::new(None);
        let wait = || {
            both.wait();
        };
        let result = meanwhile(
            || {
                wait();
                *other.lock().unwrap() = Some(1);
            },
            || {
                wait();
                2
            },
        );
        assert_eq!((other.into_inner().unwrap(), result), (Some(1), 2));
    }

    #[test]
    #[should_panic(expected = "the second")]
    fn a_panic_is_passed_on() {
        in_parallel(&[1, 2, 3], |item| assert_ne!(*item, 2, "the second"));
    }
}
