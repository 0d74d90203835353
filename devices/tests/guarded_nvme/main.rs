// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guarded controller on a guest's bus.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use address::Gpa;
use devices::guarded_nvme::{GuardedNvme, Options, Outside, Shared};
use devices::pci::{Identity, MsiMessage, PciFunction, Region, Space};
use guarded_nvme::guest::{Doorbell, Doorbells, Interrupts};
use guarded_nvme::registers::{self, Layout, Shown};
use guarded_nvme::spec::registers::{Capabilities, Version};

/// What reached the monitor.
#[derive(Debug, Default)]
struct Reached {
    wakes: usize,
    messages: Vec<MsiMessage>,
    /// Whether the BAR answered at its home.
    shown: Vec<bool>,
}

/// A monitor with pages for the head and the tail doorbell of queue 1, and none for those of queue 2.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Reached>>, Arc<[AtomicU64; 2]>);

impl Seen {
    fn wakes(&self) -> usize {
        std::mem::take(&mut self.0.lock().unwrap().wakes)
    }

    fn messages(&self) -> Vec<u32> {
        let all = std::mem::take(&mut self.0.lock().unwrap().messages);
        all.into_iter().map(|message| message.data).collect()
    }

    fn shown(&self) -> Vec<bool> {
        std::mem::take(&mut self.0.lock().unwrap().shown)
    }
}

impl Outside for Seen {
    fn wake(&self) {
        self.0.lock().unwrap().wakes += 1;
    }

    fn signal(&self, message: MsiMessage) {
        self.0.lock().unwrap().messages.push(message);
    }

    fn page(&self, doorbell: Doorbell) -> Option<&AtomicU64> {
        assert_ne!(doorbell.queue, 0, "the admin queue's doorbells trap");
        let pages = [Doorbell::head(1), Doorbell::tail(1)];
        let page = pages.into_iter().zip(&*self.1);
        page.filter(|(of, _)| *of == doorbell)
            .map(|(_, page)| page)
            .next()
    }

    fn follow(&self, is_home: bool) {
        self.0.lock().unwrap().shown.push(is_home);
    }

    fn show_tails(&self, are_memory: bool) -> bool {
        are_memory
    }
}

struct Bench {
    seen: Seen,
    shared: Arc<Shared>,
    function: GuardedNvme,
}

const BAR: u64 = 0x4000_0000;
const VECTORS: u16 = 3;

fn bench() -> Bench {
    let seen = Seen::default();
    let layout = Layout::new(4096, 2, VECTORS).unwrap();
    let shared = Shared::new(layout, Box::new(seen.clone()));
    // MQES 1023, the NVM command set.
    let cap = Capabilities(1023 | 1 << 37);
    shared.begin(registers::Identity::new(cap, Version(0x1_0400), 0, 256));
    let function = GuardedNvme::new(Options {
        identity: Identity {
            vendor: 0x1b36,
            device: 0x0010,
            revision: 2,
            class: 0xff_ff_ff,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            pin: Some(devices::pci::Pin::A),
        },
        bar: Gpa(BAR),
        shared: Arc::clone(&shared),
    });
    Bench {
        seen,
        shared,
        function: function.unwrap(),
    }
}

impl Bench {
    fn config(&mut self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.function.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn read(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.function.bar_read(Region::Bar(0), offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u64, value: u32) {
        let data = value.to_le_bytes();
        self.function.bar_write(Region::Bar(0), offset, &data);
    }

    /// Gives a vector a message, unmasked or not.
    fn set_vector(&mut self, vector: u16, data: u32, masked: bool) {
        let at = self.shared.layout().msix_table().start + u64::from(vector) * 16;
        for (field, value) in (0..).zip([0xfee0_0000, 0, data, u32::from(masked)]) {
            self.write(at + 4 * field, value);
        }
    }

    /// Where the capability is; there is only the one.
    fn msix(&mut self) -> u16 {
        let at = u16::try_from(self.config(0x34) & 0xff).unwrap();
        assert_eq!(
            self.config(at) & 0xffff,
            0x11,
            "MSI-X, and nothing after it"
        );
        at
    }

    fn enable_msix(&mut self) {
        let at = self.msix() + 2;
        self.function.config_write(at, &0x8000_u16.to_le_bytes());
    }
}

#[test]
fn config_space_shows_a_controller_with_one_bar_and_msix() {
    let mut bench = bench();
    assert_eq!(bench.config(0), 0x0010_1b36);
    assert_eq!(bench.config(8), 0x0108_0202);
    assert_eq!(bench.config(0x2c), 0x1100_1af4);
    assert_eq!(bench.config(0x3c) >> 8 & 0xff, 0, "no INTx");
    assert_eq!(u64::from(bench.config(0x10)), BAR | 4);
    for bar in [0x18, 0x1c, 0x20, 0x24, 0x30] {
        bench.function.config_write(bar, &[0xff; 4]);
        assert_eq!(bench.config(bar), 0, "{bar:#x}");
    }
    let layout = *bench.shared.layout();
    let at = bench.msix();
    assert_eq!(bench.config(at) >> 16, u32::from(VECTORS) - 1);
    assert_eq!(u64::from(bench.config(at + 4)), layout.msix_table().start);
    assert_eq!(u64::from(bench.config(at + 8)), layout.pending_bits().start);
    assert_eq!(bench.function.windows().find(Space::Memory, BAR), None);
    bench.function.config_write(4, &[2, 0]);
    let last = bench
        .function
        .windows()
        .find(Space::Memory, BAR + layout.size() - 1);
    assert_eq!(last, Some((Region::Bar(0), layout.size() - 1)));
}

#[test]
fn stores_reach_the_thread() {
    let mut bench = bench();
    assert_eq!(bench.read(8), 0x1_0400);
    bench.write(0x24, 0x1f_001f);
    assert_eq!(bench.seen.wakes(), 0);
    assert_eq!(bench.shared.take_wanted().change, None);
    bench.write(0x14, 0x46_0001);
    assert_eq!(bench.seen.wakes(), 1);
    let change = bench.shared.take_wanted().change.unwrap();
    assert_eq!(change.control.admin_sizes, 0x1f_001f);
    assert!(change.control.configuration.is_enabled());
    assert_eq!(bench.shared.take_wanted().change, None);
    for doorbell in [Doorbell::tail(0), Doorbell::head(2)] {
        let offset = bench.shared.layout().doorbell(doorbell);
        bench.write(offset, 5);
        assert_eq!(bench.seen.wakes(), 1);
        assert_eq!(bench.shared.value(doorbell), 5);
        assert_eq!(bench.read(offset), 0, "write only");
        bench.function.bar_write(Region::Bar(0), offset, &[9, 0]);
        assert_eq!((bench.seen.wakes(), bench.shared.value(doorbell)), (0, 5));
        bench.shared.clear(doorbell);
        assert_eq!(bench.shared.value(doorbell), 0);
    }
    let beyond = Doorbell::tail(3);
    bench.write(bench.shared.layout().doorbell(Doorbell::head(2)) + 4096, 7);
    assert_eq!((bench.seen.wakes(), bench.shared.value(beyond)), (0, 0));
}

#[test]
fn vectors_are_delivered_once_or_wait_while_masked() {
    let mut bench = bench();
    bench.set_vector(1, 0x41, false);
    bench.shared.raise(1);
    assert_eq!(bench.seen.messages(), [0; 0], "MSI-X is off");
    bench.enable_msix();
    assert_eq!(bench.seen.messages(), [0; 0], "nothing waited");
    bench.shared.raise(1);
    assert_eq!(bench.seen.messages(), [0x41]);
    bench.set_vector(1, 0x41, true);
    bench.shared.raise(1);
    bench.shared.raise(1);
    bench.shared.raise(VECTORS);
    let pending = bench.shared.layout().pending_bits().start;
    assert_eq!(bench.read(pending), 0b10);
    assert_eq!(bench.seen.messages(), [0; 0]);
    bench.set_vector(1, 0x42, false);
    assert_eq!(bench.seen.messages(), [0x42]);
    assert_eq!(bench.read(pending), 0);
    let at = bench.msix() + 2;
    bench.function.config_write(at, &0xc000_u16.to_le_bytes());
    bench.shared.raise(1);
    assert_eq!(bench.seen.messages(), [0; 0], "the function is masked");
    bench.enable_msix();
    assert_eq!(bench.seen.messages(), [0x42]);
}

#[test]
fn a_reset_is_for_the_thread_too_and_hides_what_was_shown() {
    let mut bench = bench();
    let ready = Shown {
        is_ready: true,
        ..Shown::default()
    };
    bench.write(0x14, 0x46_0001);
    bench.enable_msix();
    bench.write(0x1000, 3);
    bench.shared.show(ready);
    assert_eq!(bench.read(0x1c), 1);
    bench.seen.wakes();
    bench.function.reset();
    assert_eq!(bench.seen.wakes(), 1);
    assert_eq!((bench.read(0x14), bench.read(0x1c)), (0, 0));
    // The thread still works with it.
    assert_eq!(bench.shared.value(Doorbell::tail(0)), 3);
    let at = bench.msix();
    assert_eq!(bench.config(at) >> 31, 0, "MSI-X is off");
    bench.shared.show(ready);
    assert_eq!(bench.read(0x1c), 0, "of the time before");
    let wanted = bench.shared.take_wanted();
    assert!(wanted.reset && wanted.change.is_none(), "{wanted:?}");
    bench.shared.show(ready);
    assert_eq!(bench.read(0x1c), 1);
}

#[test]
fn pages_of_doorbells_are_where_the_bar_answers_at_its_home() {
    let mut bench = bench();
    let command = |bench: &mut Bench, value: u8| bench.function.config_write(4, &[value, 0]);
    let address = |bench: &mut Bench, value: u64| {
        let value = u32::try_from(value).unwrap().to_le_bytes();
        bench.function.config_write(0x10, &value);
    };
    command(&mut bench, 4);
    assert_eq!(bench.seen.shown(), [false; 0], "it decodes nothing");
    command(&mut bench, 6);
    command(&mut bench, 2);
    assert_eq!(bench.seen.shown(), [true]);
    address(&mut bench, BAR + (1 << 20));
    assert_eq!(bench.seen.shown(), [false], "elsewhere there is no room");
    address(&mut bench, BAR);
    assert_eq!(bench.seen.shown(), [true]);
    bench.function.reset();
    assert_eq!(bench.seen.shown(), [false]);
}

#[test]
fn a_doorbell_that_is_memory_has_what_was_stored_there() {
    let bench = &mut bench();
    let pages = Arc::clone(&bench.seen.1);
    let [head, tail] = [Doorbell::head(1), Doorbell::tail(1)];
    for (doorbell, other, page) in [(head, tail, &pages[0]), (tail, head, &pages[1])] {
        // The guest's store, and whatever else it writes.
        page.store(0xdead_beef_0000_0007_u64.to_le(), Ordering::Relaxed);
        assert_eq!(bench.shared.value(doorbell), 7);
        assert_eq!(bench.shared.value(other), 0);
        bench.shared.clear(doorbell);
        assert_eq!(bench.shared.value(doorbell), 0);
        // A store that was trapped all the same.
        bench.seen.wakes();
        bench.write(bench.shared.layout().doorbell(doorbell), 9);
        assert_eq!(bench.seen.wakes(), 1);
        assert_eq!(bench.shared.value(doorbell), 9);
        assert_eq!(u64::from_le(page.load(Ordering::Relaxed)), 9);
        bench.function.reset();
        assert_eq!(bench.shared.value(doorbell), 9, "the thread clears it");
        bench.shared.clear(doorbell);
    }
    assert!(bench.shared.show_tails(true) && !bench.shared.show_tails(false));
}
