// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What vCPU threads and the device's thread share.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guarded_nvme::guest::{Doorbell, Doorbells, Interrupts};
use guarded_nvme::registers::{Change, Identity, Layout, Registers, Shown, Store};
use guarded_nvme::spec::registers::{Capabilities, Version};

use crate::pci::{MsiMessage, Msix};

/// What a controller needs of its monitor.
pub trait Outside: Send + Sync {
    /// Wakes the device's thread: the guest has stored to a doorbell or to CC, or was reset.
    fn wake(&self);

    /// Delivers a message to the guest.
    fn signal(&self, message: MsiMessage);

    /// The first word of the page that is an I/O queue's doorbell, if it can be a page of memory: the guest then stores
    /// to it without an exit, while it is shown. The doorbell is the lower half, and the guest writes any of it. What
    /// traps is stored there too.
    fn page(&self, doorbell: Doorbell) -> Option<&AtomicU64> {
        let _ = doorbell;
        None
    }

    /// BAR0 answers at its home, or does not. There the pages are shown: those of heads always, those of tails while that
    /// is [asked for](Self::show_tails).
    fn follow(&self, is_home: bool) {
        let _ = is_home;
    }

    /// Shows the pages of tails, or has stores to them trap. Returns whether any of them is shown now. Where none is, all
    /// that the guest had stored to them before is visible.
    fn show_tails(&self, are_memory: bool) -> bool {
        let _ = are_memory;
        false
    }
}

/// What the guest wants of its controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The function is to be reset, before the rest.
    pub reset: bool,
    /// CC has changed.
    pub change: Option<Change>,
}

/// The state of one controller that both sides reach.
pub struct Shared {
    layout: Layout,
    /// By [`Doorbell::index`].
    doorbells: Box<[AtomicU32]>,
    registers: Mutex<State>,
    /// There may be something for [`take_wanted`](Self::take_wanted), which a thread that polls asks all the time.
    has_news: AtomicBool,
    messages: Mutex<Messages>,
    outside: Box<dyn Outside>,
}

struct State {
    registers: Registers,
    is_reset_wanted: bool,
}

struct Messages {
    table: Msix,
    /// Vectors that were raised while they were masked.
    pending: Box<[bool]>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// A controller whose registers read as 0 until it [begins](Self::begin).
    #[must_use]
    pub fn new(layout: Layout, outside: Box<dyn Outside>) -> Arc<Self> {
        let doorbells = 2 * (usize::from(layout.queues()) + 1);
        Arc::new(Self {
            layout,
            doorbells: (0..doorbells).map(|_| AtomicU32::new(0)).collect(),
            registers: Mutex::new(State {
                registers: Registers::new(nothing(), layout),
                is_reset_wanted: false,
            }),
            has_news: AtomicBool::new(false),
            messages: Mutex::new(Messages {
                table: Msix::new(layout.vectors()),
                pending: vec![false; layout.vectors().into()].into(),
            }),
            outside,
        })
    }

    /// The controller at power-on, with these read-only registers.
    pub fn begin(&self, identity: Identity) {
        self.state().registers = Registers::new(identity, self.layout);
    }

    /// Where things are in BAR0.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What the guest has asked for since the last call: for the device's thread.
    #[must_use]
    pub fn take_wanted(&self) -> Wanted {
        if !self.has_news.load(Ordering::Acquire) {
            return Wanted::default();
        }
        // What is stored from here on is taken, or is news again.
        self.has_news.store(false, Ordering::SeqCst);
        let mut state = self.state();
        Wanted {
            reset: std::mem::take(&mut state.is_reset_wanted),
            change: state.registers.take_change(),
        }
    }

    /// What CSTS shows from now on: of the device's thread. Dropped if the function was reset meanwhile.
    pub fn show(&self, shown: Shown) {
        let mut state = self.state();
        if !state.is_reset_wanted {
            state.registers.show(shown);
        }
    }

    /// A load of the guest's from BAR0.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        let (table, pending) = (self.layout.msix_table(), self.layout.pending_bits());
        if table.contains(&offset) {
            let messages = self.messages();
            messages.table.read_table(offset - table.start, data);
        } else if pending.contains(&offset) {
            self.messages().read_pending(offset - pending.start, data);
        } else {
            self.state().registers.read(offset, data);
        }
    }

    /// A store of the guest's to BAR0.
    pub(super) fn write(&self, offset: u64, data: &[u8]) {
        // Doorbells first, and without a lock.
        if let (Some(doorbell), &[a, b, c, d]) = (self.layout.doorbell_at(offset), data) {
            self.ring(doorbell, u32::from_le_bytes([a, b, c, d]));
            return;
        }
        let table = self.layout.msix_table();
        if table.contains(&offset) {
            let mut messages = self.messages();
            messages.table.write_table(offset - table.start, data);
            messages.deliver(&*self.outside);
            return;
        }
        let store = self.state().registers.write(offset, data);
        match store {
            Store::Nothing => {}
            Store::Control => self.tell(),
            Store::Doorbell(doorbell, value) => self.ring(doorbell, value),
        }
    }

    /// Message Control of the MSI-X capability.
    pub(super) fn set_message_control(&self, control: u16) {
        let mut messages = self.messages();
        messages.table.set_control(control);
        messages.deliver(&*self.outside);
    }

    /// Back to power-on. The device follows in its thread, which may be at work with the doorbells until then: a tail that
    /// went back to 0 would look like commands. It clears them when the controller is enabled.
    pub(super) fn reset(&self) {
        let mut state = self.state();
        state.registers.reset();
        state.is_reset_wanted = true;
        drop(state);
        let mut messages = self.messages();
        messages.table.reset();
        messages.pending.fill(false);
        drop(messages);
        self.tell();
    }

    /// BAR0 answers at its home, or does not.
    pub(super) fn follow(&self, is_home: bool) {
        self.outside.follow(is_home);
    }

    /// Makes tails of I/O queues memory, or has stores to them trap. Returns whether any of them is memory now: of the
    /// device's thread, which may sleep only if none is.
    #[must_use]
    pub fn show_tails(&self, are_memory: bool) -> bool {
        self.outside.show_tails(are_memory)
    }

    /// The thread has something to take.
    fn tell(&self) {
        self.has_news.store(true, Ordering::SeqCst);
        self.outside.wake();
    }

    fn ring(&self, doorbell: Doorbell, value: u32) {
        self.set(doorbell, value);
        self.outside.wake();
    }

    fn set(&self, doorbell: Doorbell, value: u32) {
        if let Some(page) = self.page(doorbell) {
            page.store(u64::from(value).to_le(), Ordering::Release);
        } else if let Some(word) = self.word(doorbell) {
            word.store(value, Ordering::Release);
        }
    }

    /// The page of a doorbell that can be memory.
    fn page(&self, doorbell: Doorbell) -> Option<&AtomicU64> {
        let is_io = doorbell.queue != 0;
        is_io.then(|| self.outside.page(doorbell)).flatten()
    }

    fn word(&self, doorbell: Doorbell) -> Option<&AtomicU32> {
        let index = usize::try_from(doorbell.index()).ok()?;
        self.doorbells.get(index)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn messages(&self) -> MutexGuard<'_, Messages> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The read-only registers of no device.
fn nothing() -> Identity {
    Identity::new(Capabilities(0), Version(0), 0, 1)
}

impl Messages {
    /// Sends what was raised while it was masked and is not any more.
    fn deliver(&mut self, outside: &dyn Outside) {
        for (vector, pending) in (0..).zip(&mut self.pending) {
            if !*pending {
                continue;
            }
            if let Some(message) = self.table.message(vector) {
                *pending = false;
                outside.signal(message);
            }
        }
    }

    fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            let first = usize::try_from(at * 8).unwrap_or(usize::MAX);
            let bits = self.pending.iter().skip(first).take(8);
            *byte = (0..)
                .zip(bits)
                .fold(0, |byte, (bit, pending)| byte | u8::from(*pending) << bit);
        }
    }
}

impl Doorbells for Shared {
    fn value(&self, doorbell: Doorbell) -> u32 {
        if let Some(page) = self.page(doorbell) {
            let [a, b, c, d, ..] = page.load(Ordering::Acquire).to_ne_bytes();
            return u32::from_le_bytes([a, b, c, d]);
        }
        self.word(doorbell)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn clear(&self, doorbell: Doorbell) {
        self.set(doorbell, 0);
    }
}

impl Interrupts for Shared {
    fn raise(&self, vector: u16) {
        let mut messages = self.messages();
        if let Some(message) = messages.table.message(vector) {
            // Under the lock: the guest may mask the vector in the next moment, and gets none after that.
            self.outside.signal(message);
        } else if messages.table.is_enabled()
            && let Some(pending) = messages.pending.get_mut(usize::from(vector))
        {
            *pending = true;
        }
    }
}
