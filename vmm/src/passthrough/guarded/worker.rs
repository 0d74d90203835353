// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The thread that owns a guarded controller.

use std::fmt;
use std::hint;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use address::Bdf;
use devices::guarded_nvme::Shared;
use guarded_nvme::controller::{Controller, Messages, Next};
use guarded_nvme::device::Device;
use guarded_nvme::fault::Fault;
use guarded_nvme::polling::{self, Duty, Polling};
use guarded_nvme::registers::{Change, Control, Shown};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::machine::Machine;
use crate::confine::{Confinement, ThreadKind};
use crate::run::exit::ExitSender;
use crate::run::threads::{self, Confined, ThreadError};

/// How long a device may take in the end before it is reset: to complete its commands, and to be disabled.
const GENTLE: Duration = Duration::from_secs(3);

/// A guarded controller at work. Dropping it stops it.
pub struct GuardedController {
    bdf: Bdf,
    bell: Arc<EventFd>,
    is_stopping: Arc<AtomicBool>,
    /// Closes the way to the device.
    cut: Box<dyn Fn() + Send>,
    thread: Option<JoinHandle<Option<()>>>,
}

impl fmt::Debug for GuardedController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedController")
            .field("bdf", &self.bdf)
            .finish_non_exhaustive()
    }
}

/// What a thread is started with.
#[derive(Debug)]
pub struct Work<D: Device> {
    pub bdf: Bdf,
    pub controller: Controller<D, Machine>,
    pub shared: Arc<Shared>,
    /// Written when the guest wants something.
    pub bell: Arc<EventFd>,
    /// Written by the device.
    pub interrupts: Arc<[EventFd]>,
    /// When the thread polls.
    pub polling: Polling,
    /// Whether the host has a CPU for it.
    pub has_cpu: bool,
}

impl GuardedController {
    /// Starts the thread; `exits` reports if it panics. Once it has ended, `cut` closes the way to the device.
    ///
    /// # Errors
    /// The errno of `epoll`, [`ThreadError`]. The device does no DMA then.
    pub fn spawn<D>(
        work: Work<D>,
        cut: impl Fn() + Send + 'static,
        exits: ExitSender,
        confinement: &Confinement,
    ) -> Result<Self, ThreadError>
    where
        D: Device<Block: Send> + Send + 'static,
    {
        let (bdf, bell) = (work.bdf, Arc::clone(&work.bell));
        let is_stopping = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&is_stopping);
        let events = events(&work)?;
        let name = format!("nvme-{bdf}");
        let started = threads::start(name, confinement, ThreadKind::GuardedNvme, move || {
            let _notice = exits.on_panic();
            run(work, &events, &stopping);
        });
        let Confined { thread, .. } = started?;
        Ok(Self {
            bdf,
            bell,
            is_stopping,
            cut: Box::new(cut),
            thread: Some(thread),
        })
    }

    /// Stops the controller and closes its way to the device. A device that could not be stopped is left for the steps that
    /// make devices quiet; its memory stays pinned until they have.
    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.is_stopping.store(true, Ordering::SeqCst);
        if let Err(error) = self.bell.write(1) {
            log::error!("{}: its thread cannot be woken: {error}", self.bdf);
        }
        if thread.join().is_err() {
            log::error!("{}: its thread panicked", self.bdf);
        }
        (self.cut)();
    }
}

impl Drop for GuardedController {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits for all that brings work. Edge-triggered, so that nothing has to be read.
fn events<D: Device>(work: &Work<D>) -> io::Result<Epoll> {
    let events = Epoll::new()?;
    let wanted = EventSet::IN | EventSet::EDGE_TRIGGERED;
    for event in work.interrupts.iter().chain([&*work.bell]) {
        let fd = event.as_raw_fd();
        events.ctl(ControlOperation::Add, fd, EpollEvent::new(wanted, 0))?;
    }
    Ok(events)
}

fn run<D: Device>(work: Work<D>, events: &Epoll, is_stopping: &AtomicBool) {
    let polling = work.polling;
    let mut servant = Servant {
        work,
        events,
        is_stopping,
        began: Instant::now(),
        shown: Shown::default(),
        fault: None,
        messages: Messages::default(),
    };
    polling::work(&mut servant, polling);
    let Servant { work, began, .. } = servant;
    let (bdf, mut controller) = (work.bdf, work.controller);
    disable(&mut controller, events, began);
    match controller.detach() {
        Ok(device) => drop(device),
        Err(error) => log::error!("{bdf}: cannot be stopped by its thread: {error}"),
    }
}

/// What the thread has.
struct Servant<'a, D: Device> {
    work: Work<D>,
    events: &'a Epoll,
    is_stopping: &'a AtomicBool,
    began: Instant,
    shown: Shown,
    fault: Option<Fault>,
    messages: Messages,
}

impl<D: Device> Duty for Servant<'_, D> {
    fn is_over(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    fn serve(&mut self) -> Next {
        let Work {
            bdf,
            controller,
            shared,
            ..
        } = &mut self.work;
        let wanted = shared.take_wanted();
        if wanted.reset
            && let Err(error) = controller.reset()
        {
            log::error!("{bdf}: its guest's reset: {error}");
        }
        if let Some(change) = wanted.change {
            controller.configure(change);
        }
        let next = controller.service(self.began.elapsed());
        let shown = controller.shown();
        // A reset of the function has cleared what was shown.
        if wanted.reset || self.shown != shown {
            self.shown = shown;
            shared.show(shown);
        }
        if controller.fault() != self.fault {
            self.fault = controller.fault();
            if let Some(fault) = &self.fault
                && self.messages.take()
            {
                log::error!("{bdf}: its guest's controller fails: {fault}");
            }
        }
        next
    }

    fn show_tails(&mut self, are_memory: bool) -> bool {
        self.work.shared.show_tails(are_memory)
    }

    fn pause(&mut self) {
        // A CPU that nothing else wants needs no system call.
        match self.work.has_cpu {
            true => hint::spin_loop(),
            false => thread::yield_now(),
        }
    }

    fn sleep(&mut self, within: Option<Duration>) {
        wait(self.events, within);
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Disables the device as its guest would, and waits for that a while. It is reset all the same, but not by a thread, and
/// perhaps with others on its bus.
fn disable<D: Device>(controller: &mut Controller<D, Machine>, events: &Epoll, began: Instant) {
    let limit = began.elapsed() + GENTLE;
    controller.configure(Change {
        control: Control::default(),
        was_disabled: true,
    });
    while !controller.is_quiet() && began.elapsed() < limit {
        let next = controller.service(began.elapsed());
        match next.within {
            _ if next.is_busy => {}
            Some(time) => wait(events, Some(time)),
            None => break,
        }
    }
}

fn wait(events: &Epoll, within: Option<Duration>) {
    let milliseconds = within.map_or(-1, |time| {
        i32::try_from(time.as_millis().max(1)).unwrap_or(i32::MAX)
    });
    // An interruption by a signal is as good as an event: all is looked at again.
    let mut found = [EpollEvent::default(); 8];
    let _ = events.wait(milliseconds, &mut found);
}

#[cfg(test)]
mod tests;
