// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's driver, its controller's thread, and a device in software.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a pattern of bytes, and two vectors"
)]

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use address::{Gpa, Hpa, Iova};
use devices::guarded_nvme::{GuardedNvme, Options, Outside, Shared};
use devices::pci::{Identity, MsiMessage, PciFunction, Region};
use guarded_nvme::controller::Config;
use guarded_nvme::guest::{Doorbell, GuestMemory, Side};
use guarded_nvme::registers::Layout;
use iommufd_backend::OwnPages;
use iommufd_backend::PinRequest;
use software_memory::{PhysicalMemory, SoftwareBackend};

use super::*;
use crate::arch::low;
use crate::kvm::eventfd;
use crate::memory::guest::GuestRam;
use crate::memory::layout::Conventional;
use crate::memory::plan::{Constraints, Extent, MemoryPlan, Region as Memory};
use crate::memory::table::Draft;
use crate::passthrough::guarded::pages::Pool;
use crate::passthrough::guarded::soft::SoftDevice;
use crate::run::exit;

const MIB: u64 = 1 << 20;
/// Of each queue.
const ENTRIES: u16 = 32;
const GUARD: Bdf = Bdf::new(0, 1, 0, 0).unwrap();
/// Where the driver has things: admin queues, I/O queues, a list and data.
const BASE: Gpa = Gpa(2 * MIB);

struct Monitor {
    bell: Arc<EventFd>,
    messages: Arc<Mutex<Vec<u32>>>,
    doorbells: Arc<Doorbells>,
}

/// The doorbells of queue 1.
#[derive(Default)]
struct Doorbells {
    head: AtomicU64,
    tail: AtomicU64,
    /// Whether the tail is memory, and how often it has become so. Held while the guest stores there: KVM takes memory
    /// away before a store or after it.
    memory: Mutex<(bool, usize)>,
}

impl Outside for Monitor {
    fn wake(&self) {
        self.bell.write(1).unwrap();
    }

    fn signal(&self, message: MsiMessage) {
        self.messages.lock().unwrap().push(message.data);
    }

    fn page(&self, doorbell: Doorbell) -> Option<&AtomicU64> {
        match doorbell.side {
            Side::Submission => Some(&self.doorbells.tail),
            Side::Completion => Some(&self.doorbells.head),
        }
    }

    fn show_tails(&self, are_memory: bool) -> bool {
        if !are_memory {
            // KVM takes its time, in which the guest stores.
            thread::sleep(Duration::from_micros(500));
        }
        let mut memory = self.doorbells.memory.lock().unwrap();
        memory.0 = are_memory;
        memory.1 += usize::from(are_memory);
        are_memory
    }
}

struct Bench {
    function: GuardedNvme,
    device: SoftDevice,
    controller: GuardedController,
    shared: Arc<Shared>,
    /// The guest's own view of its memory.
    ram: Machine,
    messages: Arc<Mutex<Vec<u32>>>,
    doorbells: Arc<Doorbells>,
    is_cut: Arc<AtomicBool>,
    tails: [u16; 2],
}

fn memory(backend: &mut SoftwareBackend) -> (GuestRam, Arc<crate::memory::table::RamTable>) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(8 * MIB).unwrap();
    let pinned = backend.pin(&PinRequest {
        file: &file,
        offset: 0,
        len: 8 * MIB,
        page_size: 4096,
        iova: Iova(1 << 30),
    });
    let extents: Vec<_> = pinned
        .unwrap()
        .iter()
        .map(|extent| Extent {
            offset: extent.iova() - Iova(1 << 30),
            hpa: extent.hpa(),
            len: extent.len(),
        })
        .collect();
    let constraints = Constraints {
        taken: vec![("low memory", Gpa(0)..Gpa(MIB))],
        address_bits: 40,
        slots: 10,
        kept: 0,
        dma: host::DmaMap::Identity,
    };
    let region = Memory::of_file(8 * MIB);
    let plan = MemoryPlan::new(vec![region], &Conventional, &constraints).unwrap();
    let ram = GuestRam::map(low::allocate().unwrap().as_ref(), Some(&file), &plan).unwrap();
    let table = Draft::new(&plan, &extents).unwrap().build(Gpa(0)).unwrap();
    (ram, Arc::new(table))
}

fn bench() -> Bench {
    polled(Polling::Never)
}

/// A controller whose thread polls so.
fn polled(polling: Polling) -> Bench {
    // Runs of two pages: no queue of 16 KiB is in one piece.
    let physical = PhysicalMemory::new([Hpa(4 << 30)..Hpa(5 << 30)], 8192, 5);
    let mut backend = SoftwareBackend::new(physical);
    let (guest, table) = memory(&mut backend);
    let config = Config {
        queues: 1,
        vectors: 2,
        mdts: 9,
    };
    let mut pages = OwnPages::new(config.pages()).unwrap();
    pages
        .pin(Iova(0x1_0000), |request| backend.pin(request))
        .unwrap();
    let interrupts: Arc<[EventFd]> = (0..2).map(|_| eventfd::new().unwrap()).collect();
    let disk: Vec<u8> = (0..MIB).map(|at| (at / 7) as u8).collect();
    let device = SoftDevice::new(
        backend.port(),
        Pool::new(pages),
        Arc::clone(&interrupts),
        disk,
    );
    let bell = Arc::new(eventfd::new().unwrap());
    let messages = Arc::new(Mutex::new(Vec::new()));
    let doorbells = Arc::new(Doorbells::default());
    let monitor = Monitor {
        bell: Arc::clone(&bell),
        messages: Arc::clone(&messages),
        doorbells: Arc::clone(&doorbells),
    };
    let shared = Shared::new(Layout::new(4096, 1, 2).unwrap(), Box::new(monitor));
    let machine = || Machine {
        table: Arc::clone(&table),
        ram: guest.share(),
        shared: Arc::clone(&shared),
        unchecked: None,
    };
    let controller = Controller::attach(device.clone(), machine(), config).unwrap();
    shared.begin(controller.identity());
    let options = Options {
        identity: Identity::default(),
        bar: Gpa(1 << 30),
        shared: Arc::clone(&shared),
    };
    let work = Work {
        bdf: GUARD,
        controller,
        shared: Arc::clone(&shared),
        bell,
        interrupts,
        polling,
        has_cpu: false,
    };
    let is_cut = Arc::new(AtomicBool::new(false));
    let cut = Arc::clone(&is_cut);
    let (exits, _) = exit::channel().unwrap();
    Bench {
        function: GuardedNvme::new(options).unwrap(),
        controller: GuardedController::spawn(
            work,
            move || cut.store(true, Ordering::SeqCst),
            exits,
            &Confinement::default(),
        )
        .unwrap(),
        ram: machine(),
        device,
        shared,
        messages,
        doorbells,
        is_cut,
        tails: [0; 2],
    }
}

impl Bench {
    fn write(&mut self, offset: u64, value: u32) {
        let data = value.to_le_bytes();
        self.function.bar_write(Region::Bar(0), offset, &data);
    }

    fn read(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.function.bar_read(Region::Bar(0), offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Waits for the other threads, which a minute is always enough for.
    fn wait(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < Duration::from_secs(60), "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn enable(&mut self) {
        let last = u32::from(ENTRIES - 1);
        self.write(0x24, last | last << 16);
        self.write(0x28, u32::try_from(BASE.0).unwrap());
        self.write(0x30, u32::try_from(BASE.0 + 0x1000).unwrap());
        self.write(0x14, 0x46_0001);
        self.wait("RDY", |bench| bench.read(0x1c) & 1 != 0);
        let table = self.shared.layout().msix_table().start;
        for vector in 0..2 {
            let entry = table + 16 * vector;
            for (field, value) in [(0, 0xfee0_0000), (8, 0x40 + vector as u32), (12, 0)] {
                self.write(entry + field, value);
            }
        }
        let mut capability = [0; 1];
        self.function.config_read(0x34, &mut capability);
        let control = u16::from(capability[0]) + 2;
        self.function
            .config_write(control, &0x8000_u16.to_le_bytes());
    }

    /// Stores the tail of queue 0 or 1 as the guest does: with an exit, or without.
    fn ring(&mut self, queue: u16) {
        let tail = self.tails[usize::from(queue)] % ENTRIES;
        let doorbells = Arc::clone(&self.doorbells);
        let memory = doorbells.memory.lock().unwrap();
        if queue == 1 && memory.0 {
            doorbells.tail.store(tail.into(), Ordering::Release);
            return;
        }
        drop(memory);
        let doorbell = self.shared.layout().doorbell(Doorbell::tail(queue));
        self.write(doorbell, tail.into());
    }

    /// Puts a command in queue 0 or 1. Returns where it completes, and the phase of that.
    fn put(&mut self, queue: u16, words: [u64; 8]) -> (Gpa, u64) {
        let index = usize::from(queue);
        let tail = self.tails[index];
        let slot = u64::from(tail % ENTRIES);
        let base = BASE + 0x2000 * u64::from(queue);
        for (place, word) in (0..).zip(words) {
            assert!(self.ram.publish(base + slot * 64 + 8 * place, word));
        }
        self.tails[index] += 1;
        let phase = u64::from(tail / ENTRIES + 1) & 1;
        (base + 0x1000 + slot * 16 + 8, phase)
    }

    /// A command of queue 0 or 1, and its status.
    fn execute(&mut self, queue: u16, words: [u64; 8]) -> u64 {
        let (completion, phase) = self.put(queue, words);
        self.ring(queue);
        self.wait("a completion", |bench| {
            bench.ram.load(completion).unwrap() >> 48 & 1 == phase
        });
        self.wait("an interrupt", |bench| {
            let mut messages = bench.messages.lock().unwrap();
            let found = messages
                .iter()
                .position(|data| *data == 0x40 + u32::from(queue));
            found.is_some_and(|at| messages.remove(at) != 0)
        });
        let head = self.shared.layout().doorbell(Doorbell::head(queue));
        self.write(head, u32::from(self.tails[usize::from(queue)] % ENTRIES));
        self.ram.load(completion).unwrap() >> 49
    }

    /// How often the tail of queue 1 became memory, and whether it is.
    fn memory(&self) -> (bool, usize) {
        *self.doorbells.memory.lock().unwrap()
    }

    fn create_queues(&mut self) {
        let (submission, completion) = (BASE.0 + 0x2000, BASE.0 + 0x3000);
        let shape = 1 | u64::from(ENTRIES - 1) << 16;
        let make = [5, 0, 0, completion, 0, shape | (3 | 1 << 16) << 32, 0, 0];
        assert_eq!(self.execute(0, make), 0);
        let make = [1, 0, 0, submission, 0, shape | (1 | 1 << 16) << 32, 0, 0];
        assert_eq!(self.execute(0, make), 0);
    }

    /// Reads or writes 5 pages at a block.
    fn transfer(&mut self, opcode: u64, block: u64) -> u64 {
        let (list, data) = (BASE + 0x4000, BASE + 0x10_0000);
        for page in 1..5 {
            // In the opposite order.
            let page_gpa = data + (5 - page) * 4096;
            assert!(self.ram.publish(list + 8 * (page - 1), page_gpa.0));
        }
        self.execute(1, [opcode | 1 << 32, 0, 0, data.0, list.0, block, 39, 0])
    }
}

#[test]
fn a_driver_reads_and_writes_through_the_thread() {
    let mut bench = bench();
    bench.enable();
    bench.create_queues();
    assert_eq!(bench.transfer(2, 8), 0);
    let mut seen = vec![0; 4096];
    assert!(bench.ram.read(BASE + 0x10_4000, &mut seen));
    assert_eq!(seen, bench.device.state().disk[8 * 512 + 4096..][..4096]);
    assert_eq!(bench.transfer(1, 100), 0);
    let disk = bench.device.state().disk.clone();
    assert_eq!(disk[100 * 512..][..20480], disk[8 * 512..][..20480]);
    let outside = [2 | 1 << 32, 0, 0, 1 << 40, 0, 0, 0, 0];
    assert_ne!(bench.execute(1, outside), 0, "not the guest's memory");
    assert!(bench.device.state().is_master);
    drop(bench.controller);
    let state = bench.device.state();
    assert!(!state.is_master && bench.is_cut.load(Ordering::SeqCst));
    assert_eq!(state.resets, 0, "disabled as its guest would have");
}

#[test]
fn a_reset_of_the_function_resets_the_device() {
    let mut bench = bench();
    bench.enable();
    bench.function.reset();
    bench.wait("the reset", |bench| bench.device.state().resets == 1);
    assert_eq!(bench.read(0x1c), 0);
    bench.tails = [0; 2];
    // The completions of before.
    for at in 0..0x1000 / 8 {
        assert!(bench.ram.publish(BASE + 0x1000 + 8 * at, 0));
    }
    bench.enable();
    bench.create_queues();
    assert_eq!(bench.transfer(2, 0), 0);
}

/// One block to the guest's page.
const READ: [u64; 8] = [2 | 1 << 32, 0, 0, BASE.0 + 0x10_0000, 0, 8, 0, 0];

#[test]
fn a_thread_that_polls_needs_no_exit_and_sends_a_message_for_all_that_it_finds() {
    let mut bench = polled(Polling::Always);
    bench.enable();
    assert_eq!(bench.memory(), (false, 0), "there is no queue yet");
    bench.create_queues();
    bench.wait("polling", |bench| bench.memory().0);
    for _ in 0..100 {
        assert_eq!(bench.execute(1, READ), 0);
    }
    assert_eq!(bench.memory(), (true, 1));
    let batch: Vec<_> = (0..8).map(|_| bench.put(1, READ)).collect();
    bench.messages.lock().unwrap().clear();
    bench.ring(1);
    bench.wait("completions", |bench| {
        let is_done = |(at, phase): &(Gpa, u64)| bench.ram.load(*at).unwrap() >> 48 & 1 == *phase;
        batch.iter().all(is_done)
    });
    // The device completes all of them before it is looked at again.
    bench.wait("a message", |bench| {
        !bench.messages.lock().unwrap().is_empty()
    });
    bench.write(0x14, 0x46_0000);
    bench.wait("RDY", |bench| bench.read(0x1c) & 1 == 0);
    bench.wait("sleep", |bench| !bench.memory().0);
    assert_eq!(*bench.messages.lock().unwrap(), [0x41]);
}

#[test]
fn no_doorbell_is_lost_between_polling_and_sleep() {
    let idle = Duration::from_millis(2);
    let mut bench = polled(Polling::WhileBusy { after: 1, idle });
    bench.enable();
    bench.create_queues();
    // More rounds where the thread has no CPU to itself, and so sees no end of polling.
    for round in 0..100_000 {
        if round >= 400 && bench.memory().1 > 1 {
            break;
        }
        // From before the end of polling to after it.
        thread::sleep(Duration::from_micros(round % 40 * 100));
        assert_eq!(bench.execute(1, READ), 0);
    }
    assert!(bench.memory().1 > 1, "{:?}", bench.memory());
}
