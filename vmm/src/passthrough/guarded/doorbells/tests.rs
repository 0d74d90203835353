// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Doorbells of a guest that KVM runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use guarded_nvme::controller::Next;
use guarded_nvme::polling::{Duty, Polling, work};

use super::*;

const BAR: Gpa = Gpa(0x8000);
/// Where the tail of queue 1 is, below 64 KiB.
const TAIL: u64 = BAR.0 + 0x3000;

fn pages(vm: &Arc<Vm>) -> DoorbellPages {
    let layout = Layout::new(4096, 1, 2).unwrap();
    DoorbellPages::new(&layout, BAR, Arc::clone(vm), true).unwrap()
}

#[test]
fn tails_are_memory_where_the_bar_answers_and_while_they_are_looked_at() {
    let Ok(vm) = Vm::new() else { return };
    let doorbells = pages(&vm);
    let is_memory = |doorbell| {
        let layout = Layout::new(4096, 1, 2).unwrap();
        let gpa = BAR + layout.doorbell(doorbell);
        // Where memory is, KVM takes no other.
        vm.map(gpa, OwnPages::new(1).unwrap().mapping()).is_err()
    };
    let are_memory = || (is_memory(Doorbell::head(1)), is_memory(Doorbell::tail(1)));
    assert_eq!(are_memory(), (false, false));
    assert!(!doorbells.show_tails(true), "the BAR does not answer");
    doorbells.follow(true);
    assert_eq!(are_memory(), (true, true));
    assert!(doorbells.show_tails(true), "nothing to do");
    assert!(!doorbells.show_tails(false));
    assert_eq!(are_memory(), (true, false));
    assert!(doorbells.show_tails(true));
    doorbells.follow(false);
    assert_eq!(are_memory(), (false, false));
    for doorbell in [Doorbell::tail(0), Doorbell::head(0), Doorbell::tail(2)] {
        assert!(doorbells.word(doorbell).is_none(), "{doorbell:?}");
    }
    let layout = Layout::new(4096, 1, 2).unwrap();
    let never = DoorbellPages::new(&layout, BAR, Arc::clone(&vm), false).unwrap();
    assert!(never.word(Doorbell::tail(1)).is_none());
    assert!(never.word(Doorbell::head(1)).is_some());
}

#[cfg(target_arch = "x86_64")]
mod guest {
    use std::os::fd::AsRawFd;
    use std::sync::atomic::AtomicUsize;

    use kvm_ioctls::VcpuExit;
    use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
    use vmm_sys_util::eventfd::EventFd;

    use super::*;
    use crate::kvm::eventfd;

    /// How often the guest stores.
    const STORES: u32 = 200;
    /// Where this many can have been memory, they trap again.
    const STORES_WITHOUT_EXIT: u64 = 5;
    const IDLE: Duration = Duration::from_micros(20);
    const CODE: Gpa = Gpa(0x1000);
    /// Word of the code's page where the guest finds what was seen.
    const SEEN: usize = 0x800 / 8;

    /// In real mode: stores 1, 2, 3 and so on to the tail, each once the one before was seen, after more and more time,
    /// up to a limit from which it begins again; then writes to a port.
    const PROGRAM: [u8; 48] = [
        0x66, 0x31, 0xc0, // xor eax, eax
        0x66, 0x40, // next: inc eax
        0x66, 0xa3, 0x00, 0xb0, // mov [TAIL], eax
        0x90, 0x90, // wait: nop; nop
        0x66, 0x3b, 0x06, 0x00, 0x18, // cmp eax, [CODE + SEEN]
        0x75, 0xf7, // jne wait
        0x66, 0x89, 0xc1, // mov ecx, eax
        0x66, 0x81, 0xe1, 0xff, 0x3f, 0x00, 0x00, // and ecx, 16383
        0x66, 0x41, // inc ecx
        0x90, 0x90, // delay: nop; nop
        0x66, 0x49, // dec ecx
        0x75, 0xfa, // jne delay
        0x66, 0x3d, 0xc8, 0x00, 0x00, 0x00, // cmp eax, STORES
        0x72, 0xd7, // jb next
        0xe6, 0xf0, // out 0xf0, al
        0xeb, 0xfe, // jmp $
    ];

    /// What a monitor is to the guest.
    struct Monitor {
        doorbells: DoorbellPages,
        bell: EventFd,
        /// Stores that trapped.
        exits: AtomicUsize,
        is_over: AtomicBool,
    }

    impl Monitor {
        fn tail(&self) -> &AtomicU64 {
            self.doorbells.word(Doorbell::tail(1)).unwrap()
        }

        /// The guest's CPU.
        fn run(&self, vm: &Vm) {
            let mut cpu = vm.create_vcpu(0).unwrap();
            let mut special = cpu.get_sregs().unwrap();
            special.cs.base = 0;
            special.cs.selector = 0;
            cpu.set_sregs(&special).unwrap();
            let mut registers = cpu.get_regs().unwrap();
            registers.rip = CODE.0;
            registers.rflags = 2;
            cpu.set_regs(&registers).unwrap();
            loop {
                match cpu.run().unwrap() {
                    VcpuExit::MmioWrite(TAIL, &[a, b, c, d]) => {
                        self.exits.fetch_add(1, Ordering::Relaxed);
                        let value = u32::from_le_bytes([a, b, c, d]);
                        self.tail().store(value.into(), Ordering::Release);
                        self.bell.write(1).unwrap();
                    }
                    VcpuExit::IoOut(0xf0, _) => break,
                    other => panic!("{other:?}"),
                }
            }
            self.is_over.store(true, Ordering::SeqCst);
            self.bell.write(1).unwrap();
        }
    }

    /// A device's thread that tells the guest what it has seen. Time passes only when it is asked to, so that each run
    /// has changes in both directions.
    struct Servant<'a> {
        monitor: &'a Monitor,
        seen: &'a AtomicU64,
        events: Epoll,
        now: Duration,
        are_memory: bool,
        /// A store of which the guest is told once stores are about to trap again.
        held: Option<u64>,
        /// How often stores trapped again.
        ends: usize,
        lost: usize,
    }

    impl Duty for Servant<'_> {
        fn is_over(&self) -> bool {
            self.monitor.is_over.load(Ordering::SeqCst)
        }

        fn serve(&mut self) -> Next {
            let value = self.monitor.tail().load(Ordering::Acquire);
            let mut is_busy = value != self.seen.load(Ordering::Relaxed);
            if is_busy && self.are_memory && value.is_multiple_of(STORES_WITHOUT_EXIT) {
                is_busy = false;
                self.held = Some(value);
                self.now += IDLE;
            } else {
                self.seen.store(value, Ordering::Release);
            }
            Next {
                is_busy,
                within: None,
                has_queues: true,
            }
        }

        fn show_tails(&mut self, are_memory: bool) -> bool {
            if let Some(value) = self.held.take() {
                self.seen.store(value, Ordering::Release);
            }
            self.ends += usize::from(!are_memory);
            // The guest stores meanwhile: before the change, or during it.
            if self.ends.is_multiple_of(2) {
                thread::sleep(Duration::from_micros(200));
            }
            self.are_memory = self.monitor.doorbells.show_tails(are_memory);
            self.are_memory
        }

        fn pause(&mut self) {
            thread::yield_now();
        }

        fn sleep(&mut self, _: Option<Duration>) {
            let mut found = [EpollEvent::default()];
            // The guest goes on after the first loss, so that its thread ends.
            let patience = if self.lost == 0 { 20_000 } else { 10 };
            let found = self.events.wait(patience, &mut found).unwrap();
            self.lost += usize::from(found == 0);
        }

        fn now(&self) -> Duration {
            self.now
        }
    }

    #[test]
    fn no_store_is_lost_while_doorbells_become_memory_and_trap_again() {
        let Ok(vm) = Vm::new() else { return };
        let code = OwnPages::new(1).unwrap();
        for (word, bytes) in code.words().iter().zip(PROGRAM.chunks(8)) {
            let mut all = [0; 8];
            all[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(all), Ordering::Relaxed);
        }
        let _memory = vm.map(CODE, code.mapping()).unwrap();
        let monitor = Monitor {
            doorbells: pages(&vm),
            bell: eventfd::new().unwrap(),
            exits: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        };
        monitor.doorbells.follow(true);
        let events = Epoll::new().unwrap();
        let wanted = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        let bell = monitor.bell.as_raw_fd();
        events.ctl(ControlOperation::Add, bell, wanted).unwrap();
        let mut servant = Servant {
            monitor: &monitor,
            seen: &code.words()[SEEN],
            events,
            now: Duration::ZERO,
            are_memory: false,
            held: None,
            ends: 0,
            lost: 0,
        };
        let polling = Polling::WhileBusy {
            after: 1,
            idle: IDLE,
        };
        thread::scope(|scope| {
            scope.spawn(|| monitor.run(&vm));
            work(&mut servant, polling);
        });
        assert_eq!(servant.lost, 0, "stores are lost");
        assert_eq!(servant.seen.load(Ordering::Relaxed), u64::from(STORES));
        let exits = monitor.exits.load(Ordering::Relaxed);
        let stores = usize::try_from(STORES).unwrap();
        assert!(exits > 0 && exits < stores, "{exits} exits");
        assert!(servant.ends > 2, "{} ends", servant.ends);
        println!("{exits} exits, {} ends", servant.ends);
    }
}
