// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! When the device's thread looks at doorbells by itself, and when it sleeps.
//!
//! The guest's I/O submission doorbells either trap, and a store wakes the thread, or they are memory: the guest stores
//! without an exit, and the thread has to look.
//!
//! ```text
//!              ┌── busy again and again, or always ──┐
//!              │                                     ▼
//!     trapped, sleeps when                   memory, looks at them
//!     there is nothing                       all the time
//!              ▲                                     │
//!              └── trap, then look once more ────────┘  nothing for a while
//! ```
//!
//! The admin submission doorbell always traps, and so does everything else that the guest stores to BAR0.

use std::time::Duration;

use crate::controller::Next;

/// When the device's thread polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polling {
    /// It sleeps when there is nothing to do.
    Never,
    /// It begins once it had work `after` times, each within `idle` of the last, and ends after `idle` without work. A
    /// change between the two costs more than a few exits.
    WhileBusy {
        /// At least 1.
        after: u32,
        /// Longer than the device takes for a command.
        idle: Duration,
    },
    /// As long as there are I/O queues.
    Always,
}

impl Polling {
    /// [`WhileBusy`](Self::WhileBusy) for the usual devices, which take less than 100 us for a command, and hosts, where
    /// a change costs as much as some 20 exits.
    pub const BUSY: Self = Self::WhileBusy {
        after: 64,
        idle: Duration::from_millis(2),
    };
}

/// What a device's thread does.
pub trait Duty {
    /// Whether the thread is to end.
    fn is_over(&self) -> bool;

    /// Performs all work that is available now.
    fn serve(&mut self) -> Next;

    /// Makes I/O submission doorbells memory, or has stores to them trap. Returns whether any of them is memory now.
    ///
    /// Once none is, `serve` sees all that the guest had stored before, and each later store ends `sleep`, also if it comes
    /// before the call of that.
    fn show_tails(&mut self, are_memory: bool) -> bool;

    /// Leaves the CPU to others for a moment.
    fn pause(&mut self);

    /// Waits until something happens that brings work, or for so long.
    fn sleep(&mut self, within: Option<Duration>);

    /// The time by any clock that does not go back.
    fn now(&self) -> Duration;
}

/// Does a device's duty until it is over. No store to a doorbell is lost: the thread sleeps only if all of them trap, and
/// nothing was found since then.
pub fn work<D: Duty>(duty: &mut D, polling: Polling) {
    let mut pace = Pace::new(polling);
    while !duty.is_over() {
        let next = duty.serve();
        match pace.turn(next, duty.now()) {
            Turn::Again => {}
            Turn::Pause => duty.pause(),
            Turn::Sleep => duty.sleep(next.within),
            Turn::Switch(wanted) => {
                let are_memory = duty.show_tails(wanted);
                pace.switched(wanted, are_memory, duty.now());
            }
        }
    }
}

/// What comes after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The next look, at once.
    Again,
    /// The next look, after others had the CPU.
    Pause,
    /// Sleep.
    Sleep,
    /// Doorbells become memory or trap, and then the next look.
    Switch(bool),
}

#[derive(Debug)]
struct Pace {
    polling: Polling,
    is_polling: bool,
    /// When there was work of I/O queues.
    worked_at: Duration,
    /// How often in a row there was work soon after other work.
    streak: u32,
}

impl Pace {
    fn new(polling: Polling) -> Self {
        Self {
            polling,
            is_polling: false,
            worked_at: Duration::ZERO,
            streak: 0,
        }
    }

    fn turn(&mut self, next: Next, now: Duration) -> Turn {
        let polls = next.has_queues && self.polls(next.is_busy, now);
        match polls {
            _ if polls != self.is_polling => Turn::Switch(polls),
            _ if next.is_busy => Turn::Again,
            true => Turn::Pause,
            false => Turn::Sleep,
        }
    }

    /// Whether to poll, with queues.
    fn polls(&mut self, is_busy: bool, now: Duration) -> bool {
        let (after, idle) = match self.polling {
            Polling::Never => return false,
            Polling::Always => return true,
            Polling::WhileBusy { after, idle } => (after, idle),
        };
        let is_soon = now.saturating_sub(self.worked_at) < idle;
        if is_busy {
            self.worked_at = now;
            self.streak = if is_soon { self.streak + 1 } else { 1 };
        }
        match self.is_polling {
            true => is_busy || is_soon,
            false => is_busy && self.streak >= after,
        }
    }

    /// After an attempt. Doorbells that cannot be made to trap have to be looked at on; if they cannot be made memory,
    /// the thread polls all the same.
    fn switched(&mut self, wanted: bool, are_memory: bool, now: Duration) {
        self.is_polling = wanted || are_memory;
        self.worked_at = now;
        self.streak = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_millis(2);

    fn next(is_busy: bool, has_queues: bool) -> Next {
        Next {
            is_busy,
            within: None,
            has_queues,
        }
    }

    fn at(microseconds: u64) -> Duration {
        Duration::from_secs(1) + Duration::from_micros(microseconds)
    }

    #[test]
    fn a_thread_that_never_polls_sleeps_when_there_is_nothing() {
        let mut pace = Pace::new(Polling::Never);
        for time in 0..200 {
            assert_eq!(pace.turn(next(true, true), at(time)), Turn::Again);
        }
        assert_eq!(pace.turn(next(false, true), at(200)), Turn::Sleep);
    }

    #[test]
    fn one_that_always_polls_does_so_while_there_are_queues() {
        let mut pace = Pace::new(Polling::Always);
        assert_eq!(pace.turn(next(true, false), at(0)), Turn::Again);
        assert_eq!(pace.turn(next(false, false), at(1)), Turn::Sleep);
        assert_eq!(pace.turn(next(true, true), at(2)), Turn::Switch(true));
        pace.switched(true, true, at(3));
        assert_eq!(pace.turn(next(true, true), at(4)), Turn::Again);
        assert_eq!(pace.turn(next(false, true), at(9_000_000)), Turn::Pause);
        assert_eq!(
            pace.turn(next(false, false), at(9_000_001)),
            Turn::Switch(false)
        );
        pace.switched(false, false, at(9_000_002));
        assert_eq!(pace.turn(next(false, false), at(9_000_003)), Turn::Sleep);
    }

    #[test]
    fn one_that_polls_while_busy_begins_after_a_while_and_ends_when_idle() {
        let mut pace = Pace::new(Polling::WhileBusy {
            after: 3,
            idle: IDLE,
        });
        // Now and then is not busy.
        for time in (0..100_000).step_by(2000) {
            assert_eq!(pace.turn(next(true, true), at(time)), Turn::Again, "{time}");
            assert_eq!(pace.turn(next(false, true), at(time)), Turn::Sleep);
        }
        assert_eq!(pace.turn(next(true, true), at(98_010)), Turn::Again);
        assert_eq!(pace.turn(next(false, true), at(98_020)), Turn::Sleep);
        assert_eq!(pace.turn(next(true, true), at(99_000)), Turn::Switch(true));
        pace.switched(true, true, at(99_100));
        assert_eq!(pace.turn(next(false, true), at(101_099)), Turn::Pause);
        assert_eq!(pace.turn(next(true, true), at(101_099)), Turn::Again);
        assert_eq!(pace.turn(next(false, true), at(103_098)), Turn::Pause);
        assert_eq!(
            pace.turn(next(false, true), at(103_099)),
            Turn::Switch(false)
        );
    }

    #[test]
    fn doorbells_that_do_not_trap_again_are_looked_at_on() {
        let mut pace = Pace::new(Polling::WhileBusy {
            after: 1,
            idle: IDLE,
        });
        assert_eq!(pace.turn(next(true, true), at(0)), Turn::Switch(true));
        pace.switched(true, true, at(0));
        assert_eq!(pace.turn(next(false, true), at(2000)), Turn::Switch(false));
        pace.switched(false, true, at(2000));
        assert_eq!(pace.turn(next(false, true), at(2001)), Turn::Pause);
        assert_eq!(pace.turn(next(false, true), at(4000)), Turn::Switch(false));
        pace.switched(false, false, at(4000));
        assert_eq!(pace.turn(next(false, true), at(4001)), Turn::Sleep);
    }
}
