// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Completion signals of an engine, and their latency.

use alloc::vec::Vec;

use stress_format::Interrupt;

/// Time, and one engine's interrupts.
pub trait Signals {
    /// The clock.
    fn now(&self) -> u64;

    /// Ticks of [`now`](Self::now) in a millisecond, at least 1.
    fn ticks_per_ms(&self) -> u64;

    /// Every way that the engine has; polling is one of them.
    fn kinds(&self) -> Vec<Interrupt>;

    /// Makes the engine's interrupts arrive this way and no other.
    ///
    /// # Errors
    /// Why they cannot.
    fn select(&mut self, kind: Interrupt) -> Result<(), &'static str>;

    /// Interrupts so far.
    fn count(&self) -> u64;

    /// Lets the processor sleep until [`count`](Self::count) is no longer `seen`, or some
    /// milliseconds have passed, whichever is first.
    fn sleep(&self, seen: u64);

    /// Lets a level-triggered interrupt come again; it stays away from its arrival until here, for
    /// the driver to quiet the device first.
    fn rearm(&self);
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The device is done and signalled it, if requested.
    Done,
    /// The device is done, but its interrupt did not come.
    Lost,
    /// The device is not done.
    TimedOut,
}

/// How long an interrupt may take from when the device's status shows completion: a busy host may
/// keep it for long.
const GRACE_MS: u64 = 2000;
/// How long the device is left alone before it is asked without an interrupt.
const LOOK_MS: u64 = 50;
/// How long polling goes without sleep.
const SPIN_MS: u64 = 2;

/// What to wait for.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// How the device will signal it.
    pub kind: Interrupt,
    /// [`Signals::count`] from before it was started.
    pub seen: u64,
    /// Milliseconds after which the device is asked even if no interrupt came.
    pub ask_after_ms: u64,
    /// Milliseconds that it may take.
    pub timeout_ms: u64,
}

impl Wait {
    /// Waits until `done`, which reads the device's status, and quiets its interrupt if called with
    /// `true`.
    ///
    /// In interrupt modes the device is asked once an interrupt came, or every now and then when
    /// none comes: a lost interrupt costs time, and never hangs. It is not quieted before its
    /// interrupt was there, which might be on its way.
    pub fn until(self, signals: &impl Signals, mut done: impl FnMut(bool) -> bool) -> Ended {
        let start = signals.now();
        let ticks = signals.ticks_per_ms();
        let since = |from: u64| signals.now().wrapping_sub(from) / ticks;
        let mut seen = self.seen;
        let mut done_at = None;
        // One that came late after the last wait, when the device had been quieted already, keeps
        // the line away too.
        if self.kind == Interrupt::Intx {
            signals.rearm();
        }
        loop {
            let count = signals.count();
            let arrived = count != seen;
            if self.kind == Interrupt::Polling || arrived || since(start) >= LOOK_MS {
                seen = count;
                let is_done = done(arrived);
                if arrived && self.kind == Interrupt::Intx {
                    signals.rearm();
                }
                match (is_done, done_at) {
                    (true, _) if self.kind == Interrupt::Polling || arrived => return Ended::Done,
                    (true, None) => done_at = Some(signals.now()),
                    (true, Some(from)) if since(from) >= GRACE_MS => {
                        done(true);
                        return Ended::Lost;
                    }
                    (false, _) if since(start) >= self.timeout_ms => return Ended::TimedOut,
                    _ => (),
                }
            }
            if self.kind != Interrupt::Polling || since(start) >= SPIN_MS {
                signals.sleep(seen);
            } else {
                core::hint::spin_loop();
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use core::cell::Cell;

    use super::*;

    /// A clock that a look at it or a sleep moves on, and interrupts at given times.
    #[derive(Debug, Default)]
    pub struct Script {
        pub time: Cell<u64>,
        pub arrivals: Vec<u64>,
        pub rearmed: Cell<u64>,
        pub kind: Option<Interrupt>,
    }

    impl Signals for Script {
        fn now(&self) -> u64 {
            self.time.set(self.time.get() + 1);
            self.time.get()
        }
        fn ticks_per_ms(&self) -> u64 {
            10
        }
        fn kinds(&self) -> Vec<Interrupt> {
            [Interrupt::Polling, Interrupt::Intx, Interrupt::Msi].into()
        }
        fn select(&mut self, kind: Interrupt) -> Result<(), &'static str> {
            self.kind = Some(kind);
            Ok(())
        }
        fn count(&self) -> u64 {
            self.arrivals
                .iter()
                .filter(|at| **at <= self.time.get())
                .count() as u64
        }
        fn sleep(&self, _: u64) {
            self.time.set(self.time.get() + 100);
        }
        fn rearm(&self) {
            self.rearmed.set(self.rearmed.get() + 1);
        }
    }

    fn wait(kind: Interrupt, script: &Script, done_at: u64) -> Ended {
        let wait = Wait {
            kind,
            seen: 0,
            ask_after_ms: 50,
            timeout_ms: 20_000,
        };
        wait.until(script, |_| script.time.get() >= done_at)
    }

    #[test]
    fn an_interrupt_ends_a_wait() {
        let script = Script {
            arrivals: [900].into(),
            ..Script::default()
        };
        assert_eq!(wait(Interrupt::Msi, &script, 900), Ended::Done);
        assert!(script.time.get() < 1200);
        assert_eq!(script.rearmed.get(), 0);
    }

    #[test]
    fn a_line_is_armed_again_even_if_another_device_pulled_it() {
        let script = Script {
            arrivals: [200, 2000].into(),
            ..Script::default()
        };
        assert_eq!(wait(Interrupt::Intx, &script, 2000), Ended::Done);
        assert!(script.rearmed.get() >= 3);
    }

    #[test]
    fn polling_needs_no_interrupt() {
        let script = Script::default();
        assert_eq!(wait(Interrupt::Polling, &script, 5000), Ended::Done);
    }

    #[test]
    fn a_lost_interrupt_is_distinguished_from_a_late_one() {
        let script = Script::default();
        assert_eq!(wait(Interrupt::Msi, &script, 1000), Ended::Lost);
        let late = Script {
            arrivals: [1500].into(),
            ..Script::default()
        };
        assert_eq!(wait(Interrupt::Msi, &late, 1000), Ended::Done);
    }

    #[test]
    fn a_device_that_never_ends_is_given_up() {
        for kind in [Interrupt::Polling, Interrupt::Intx, Interrupt::Msi] {
            let script = Script {
                arrivals: [300].into(),
                ..Script::default()
            };
            assert_eq!(wait(kind, &script, u64::MAX), Ended::TimedOut, "{kind}");
            assert!(script.time.get() >= 200_000);
        }
    }
}
