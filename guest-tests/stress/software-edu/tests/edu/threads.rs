// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest or the monitor does while the worker works.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use software_edu::{DmaRefused, EduControl, Reason, Statistics};

use super::*;

/// Memory whose every access waits for a word.
struct Slow {
    arrived: Sender<u64>,
    go_on: Mutex<Receiver<()>>,
}

impl DmaMemory for Slow {
    fn read(&self, address: u64, _: &mut [u8]) -> Result<(), DmaRefused> {
        self.arrived.send(address).unwrap();
        self.go_on.lock().unwrap().recv().map_err(|_| DmaRefused)
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), DmaRefused> {
        Err(DmaRefused)
    }
}

/// A transfer of three bursts, the first of which waits for a word in the worker's thread.
struct UnderWay {
    edu: Edu,
    control: EduControl,
    events: Events,
    arrivals: Receiver<u64>,
    go: Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl UnderWay {
    fn new() -> Self {
        let (arrived, arrivals) = channel();
        let (go, go_on) = channel();
        let slow = Slow {
            arrived,
            go_on: Mutex::new(go_on),
        };
        let rig = Rig::with(|_| Box::new(slow), |events| events);
        let (mut edu, mut worker) = (rig.edu, rig.worker);
        let control = worker.control();
        let thread = thread::spawn(move || worker.run());
        write32(&mut edu, 0x60, 1);
        assert_eq!(rig.events.take(), [Event::Line(true)]);
        start(&mut edu, [RAM, BUFFER, 768, TO_BUFFER]);
        assert_eq!(arrivals.recv(), Ok(RAM));
        Self {
            edu,
            control,
            events: rig.events,
            arrivals,
            go,
            thread,
        }
    }

    /// Lets the burst end once the line has gone down, which is when `quiesce` has done its part
    /// and waits for the burst. Memory refuses all that follow.
    fn end_burst_during(&mut self, quiesce: impl FnOnce(&mut Edu)) {
        let go = std::mem::replace(&mut self.go, channel().0);
        let events = self.events.clone();
        let releaser = thread::spawn(move || {
            // Bounded, so that a line that stays up fails a test instead of hanging it.
            for _ in 0..1_000_000 {
                if events.take() == [Event::Line(false)] {
                    break;
                }
                thread::yield_now();
            }
            for _ in 0..1000 {
                thread::yield_now();
            }
            go.send(()).unwrap();
        });
        quiesce(&mut self.edu);
        assert_eq!(self.control.statistics().bytes_read, 256, "did not wait");
        releaser.join().unwrap();
    }

    fn wait_for_end(&mut self) {
        while read(&mut self.edu, 0x98) & 1 != 0 {
            thread::yield_now();
        }
    }

    /// Stops the worker. Returns the addresses of the bursts since, and what was done in all.
    fn finish(self) -> (Vec<u64>, Statistics) {
        self.control.stop();
        drop(self.go);
        self.thread.join().unwrap();
        (self.arrivals.iter().collect(), self.control.statistics())
    }
}

#[test]
fn accesses_do_not_wait_for_a_transfer() {
    let mut under_way = UnderWay::new();
    let edu = &mut under_way.edu;
    assert_eq!(read(edu, 0x98), 1);
    write32(edu, 0x64, 1);
    set_command(edu, 0x406);
    assert_eq!(status(edu) & 8, 0);
    for address in [RAM + 256, RAM + 512] {
        under_way.go.send(()).unwrap();
        assert_eq!(under_way.arrivals.recv(), Ok(address));
    }
    under_way.go.send(()).unwrap();
    under_way.wait_for_end();
    let (later, statistics) = under_way.finish();
    assert_eq!((later.len(), statistics.transfers), (0, 1));
}

#[test]
fn a_stop_ends_a_transfer_at_its_burst() {
    let under_way = UnderWay::new();
    under_way.control.stop();
    under_way.go.send(()).unwrap();
    let (later, statistics) = under_way.finish();
    assert_eq!((later.len(), statistics.bytes_read), (0, 256));
    assert_eq!((statistics.transfers, statistics.refused), (0, 0));
}

#[test]
fn no_burst_follows_the_end_of_bus_mastering() {
    let mut under_way = UnderWay::new();
    under_way.end_burst_during(|edu| set_command(edu, 0x402));
    under_way.wait_for_end();
    assert_eq!(read(&mut under_way.edu, 0xb0), RAM + 256);
    let (later, statistics) = under_way.finish();
    assert_eq!((later.len(), statistics.refused), (0, 1));
    let reason = statistics.last_refusal.unwrap().reason;
    assert_eq!(reason, Reason::BusMaster);
}

#[test]
fn no_burst_follows_a_reset() {
    let mut under_way = UnderWay::new();
    under_way.end_burst_during(Edu::reset);
    assert_eq!(read(&mut under_way.edu, 0x98), 0);
    assert_eq!(read(&mut under_way.edu, 0xa8), 0);
    set_command(&mut under_way.edu, 6);
    start(&mut under_way.edu, [RAM + PAGE, BUFFER, 1, TO_BUFFER]);
    under_way.wait_for_end();
    let (later, statistics) = under_way.finish();
    assert_eq!(later, [RAM + PAGE]);
    assert_eq!((statistics.bytes_read, statistics.refused), (256, 1));
}

#[test]
fn a_worker_ends_with_its_function() {
    let rig = Rig::new();
    let mut worker = rig.worker;
    let thread = thread::spawn(move || worker.run());
    drop(rig.edu);
    thread.join().unwrap();
}
