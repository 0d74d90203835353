// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The root as vCPUs reach it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use address::Gpa;
use vm_device::bus::{MmioAddress, PioAddress};
use vm_device::{DeviceMmio, DevicePio};

use super::{PciFunction, PciRoot, Region, RootError, Space, Window, Windows};

const ECAM: u64 = 0xe000_0000;
const BASE: u64 = 0xfe00_0000;

/// Offsets and data of writes.
type Log = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

/// A function whose config space echoes offsets, with a window of 16 bytes of memory.
#[derive(Default)]
struct Echo {
    windows: Windows,
    log: Log,
    /// Where a config write reports that it has begun and waits for permission to end.
    hold: Option<(Sender<()>, Receiver<()>)>,
}

impl Echo {
    fn at(space: Space, base: u64) -> Self {
        let mut windows = Windows::default();
        let region = Region::Bar(0);
        windows.push(Window {
            space,
            base,
            size: 16,
            region,
        });
        Self {
            windows,
            ..Self::default()
        }
    }
}

impl PciFunction for Echo {
    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = at.to_le_bytes()[0];
        }
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.log
            .lock()
            .unwrap()
            .push((offset.into(), data.to_vec()));
        if let Some((begun, leave)) = &self.hold {
            begun.send(()).unwrap();
            leave.recv().unwrap();
            self.windows = Windows::default();
            self.log.lock().unwrap().push((offset.into(), Vec::new()));
        }
    }

    fn windows(&self) -> Windows {
        self.windows
    }

    fn bar_read(&mut self, region: Region, offset: u64, data: &mut [u8]) {
        assert_eq!(region, Region::Bar(0));
        assert!(offset.is_multiple_of(data.len() as u64), "aligned");
        for (at, byte) in (offset..).zip(data) {
            *byte = 0x80 | at.to_le_bytes()[0];
        }
    }

    fn bar_write(&mut self, _: Region, offset: u64, data: &[u8]) {
        self.log.lock().unwrap().push((offset, data.to_vec()));
    }

    fn reset(&mut self) {
        self.log.lock().unwrap().push((u64::MAX, Vec::new()));
    }
}

fn root() -> PciRoot {
    PciRoot::new(Gpa(ECAM)).unwrap()
}

fn read_ecam(root: &PciRoot, device: u64, function: u64, offset: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    let at = device << 15 | function << 12 | offset;
    root.mmio_read(MmioAddress(ECAM), at, &mut data);
    data
}

fn read_memory(root: &PciRoot, address: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    root.mmio_read(MmioAddress(BASE), address - BASE, &mut data);
    data
}

fn read_port(root: &PciRoot, port: u16, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    root.pio_read(PioAddress(port & !7), port & 7, &mut data);
    data
}

fn write_port(root: &PciRoot, port: u16, data: &[u8]) {
    root.pio_write(PioAddress(port & !7), port & 7, data);
}

#[test]
fn there_is_a_host_bridge() {
    let root = root();
    assert_eq!(read_ecam(&root, 0, 0, 0, 4), 0x0008_1b36_u32.to_le_bytes());
    assert_eq!(read_ecam(&root, 0, 0, 8, 4), 0x0600_0000_u32.to_le_bytes());
    assert_eq!(read_ecam(&root, 0, 0, 0x34, 1), [0]);
}

#[test]
fn ports_and_ecam_reach_the_same_registers() {
    let mut root = root();
    root.add(3, 0, Box::new(Echo::default())).unwrap();
    write_port(&root, 0xcf8, &0x8000_1848_u32.to_le_bytes());
    assert_eq!(read_port(&root, 0xcf8, 4), 0x8000_1848_u32.to_le_bytes());
    for (offset, length) in [(0, 1), (1, 1), (2, 1), (3, 1), (0, 2), (2, 2), (0, 4)] {
        let port = read_port(&root, 0xcfc + offset, length);
        assert_eq!(
            port,
            read_ecam(&root, 3, 0, 0x48 + u64::from(offset), length)
        );
        assert_eq!(port[0], 0x48 + offset.to_le_bytes()[0]);
    }
}

#[test]
fn writes_reach_the_function_as_wide_as_they_were() {
    let mut root = root();
    let echo = Echo::default();
    let log = echo.log.clone();
    root.add(3, 0, Box::new(echo)).unwrap();
    write_port(&root, 0xcf8, &0x8000_1848_u32.to_le_bytes());
    write_port(&root, 0xcfe, &[1, 2]);
    root.mmio_write(MmioAddress(ECAM), 3 << 15 | 0xffc, &[3, 4, 5, 6]);
    assert_eq!(
        *log.lock().unwrap(),
        [(0x4a, vec![1, 2]), (0xffc, vec![3, 4, 5, 6])]
    );
}

#[test]
fn what_is_not_decoded_reads_as_all_ones() {
    let mut root = root();
    let echo = Echo::default();
    let log = echo.log.clone();
    root.add(3, 0, Box::new(echo)).unwrap();
    for (device, function, offset, length) in [
        (4, 0, 0, 4),
        (3, 1, 0, 4),
        (3, 0, 1, 2),
        (3, 0, 2, 4),
        (3, 0, 0, 3),
        (3, 0, 0, 8),
        (3, 0, 0xffd, 4),
    ] {
        assert_eq!(
            read_ecam(&root, device, function, offset, length),
            vec![0xff; length]
        );
        let at = device << 15 | function << 12 | offset;
        root.mmio_write(MmioAddress(ECAM), at, &vec![0; length]);
    }
    for address in [0x0000_1800_u32, 0x8001_1800, 0x8000_2000, 0x80ff_1800] {
        write_port(&root, 0xcf8, &address.to_le_bytes());
        assert_eq!(read_port(&root, 0xcfc, 4), [0xff; 4], "{address:#x}");
        write_port(&root, 0xcfc, &[0; 4]);
    }
    write_port(&root, 0xcf8, &0x8000_1800_u32.to_le_bytes());
    write_port(&root, 0xcf9, &[6]);
    write_port(&root, 0xcf8, &[0, 0]);
    for (port, length) in [(0xcf8, 1), (0xcf9, 1), (0xcfa, 2), (0xcfd, 2), (0xcfd, 4)] {
        assert_eq!(
            read_port(&root, port, length),
            vec![0xff; length],
            "{port:#x}"
        );
    }
    assert_eq!(
        read_port(&root, 0xcf8, 4),
        0x8000_1800_u32.to_le_bytes(),
        "unchanged"
    );
    assert_eq!(read_memory(&root, BASE, 8), [0xff; 8]);
    assert_eq!(*log.lock().unwrap(), []);
}

#[test]
fn functions_are_multifunction_exactly_if_they_have_siblings() {
    let mut root = root();
    for (device, function) in [(1, 0), (2, 0), (2, 5)] {
        root.add(device, function, Box::new(Echo::default()))
            .unwrap();
    }
    for (device, function, bit) in [(0, 0, 0), (1, 0, 0), (2, 0, 0x80), (2, 5, 0x80)] {
        for (offset, length) in [(0xe, 1), (0xe, 2), (0xc, 4)] {
            let data = read_ecam(&root, device, function, offset, length);
            assert_eq!(data[0xe - usize::try_from(offset).unwrap()] & 0x80, bit);
        }
        // No other register is touched.
        assert_eq!(read_ecam(&root, device, function, 0xd, 1)[0] & 0x80, 0);
    }
}

#[test]
fn functions_go_where_there_is_room_beside_function_0() {
    let mut root = root();
    let mut add = |device, function| root.add(device, function, Box::new(Echo::default()));
    assert_eq!(add(1, 0).unwrap().to_string(), "0000:00:01.0");
    assert!(matches!(add(0, 0), Err(RootError::Taken { .. })));
    assert!(matches!(add(1, 0), Err(RootError::Taken { .. })));
    assert!(matches!(add(2, 1), Err(RootError::NoFunction0 { .. })));
    assert!(matches!(add(32, 0), Err(RootError::Number { .. })));
    assert!(matches!(add(1, 8), Err(RootError::Number { .. })));
    assert!(add(31, 0).is_ok());
    assert!(add(31, 7).is_ok());
    for base in [0xe000_1000, u64::MAX - 0xf_ffff] {
        assert!(PciRoot::new(Gpa(base)).is_err());
    }
}

#[test]
fn bar_accesses_are_cut_into_aligned_pieces_of_one_function() {
    let mut root = root();
    root.add(1, 0, Box::new(Echo::at(Space::Memory, BASE)))
        .unwrap();
    let neighbour = Echo::at(Space::Memory, BASE + 32);
    let log = neighbour.log.clone();
    root.add(2, 0, Box::new(neighbour)).unwrap();
    assert_eq!(
        read_memory(&root, BASE + 8, 8),
        [0x88, 0x89, 0x8a, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f]
    );
    assert_eq!(read_memory(&root, BASE + 3, 4), [0x83, 0x84, 0x85, 0x86]);
    assert_eq!(read_memory(&root, BASE + 14, 4), [0x8e, 0x8f, 0xff, 0xff]);
    assert_eq!(read_memory(&root, BASE + 30, 4), [0xff, 0xff, 0x80, 0x81]);
    root.mmio_write(MmioAddress(BASE), 29, &[1, 2, 3, 4, 5, 6]);
    assert_eq!(*log.lock().unwrap(), [(0, vec![4, 5]), (2, vec![6])]);
}

#[test]
fn ports_are_decoded_too() {
    let mut root = root();
    root.add(1, 0, Box::new(Echo::at(Space::Io, 0xc000)))
        .unwrap();
    assert_eq!(read_port(&root, 0xc004, 2), [0x84, 0x85]);
    assert_eq!(read_port(&root, 0xc010, 1), [0xff]);
    assert_eq!(read_memory(&root, BASE, 1), [0xff]);
}

#[test]
fn after_the_stop_nothing_is_reached() {
    let mut root = root();
    let echo = Echo::at(Space::Memory, BASE);
    let log = echo.log.clone();
    root.add(1, 0, Box::new(echo)).unwrap();
    root.reset();
    assert_eq!(log.lock().unwrap().len(), 1);
    root.stop();
    root.mmio_write(MmioAddress(ECAM), 1 << 15 | 4, &[7, 0]);
    root.mmio_write(MmioAddress(BASE), 0, &[1]);
    root.reset();
    assert_eq!(log.lock().unwrap().len(), 1);
    assert_eq!(read_ecam(&root, 1, 0, 0, 4), [0xff; 4]);
    assert_eq!(read_memory(&root, BASE, 4), [0xff; 4]);
}

#[test]
fn a_slow_function_delays_no_other() {
    let (begun, has_begun) = channel();
    let (leave, may_leave) = channel();
    let mut slow = Echo::at(Space::Memory, BASE);
    slow.hold = Some((begun, may_leave));
    let mut root = root();
    root.add(1, 0, Box::new(slow)).unwrap();
    root.add(2, 0, Box::new(Echo::at(Space::Memory, BASE + 32)))
        .unwrap();
    let root = &root;
    thread::scope(|scope| {
        scope.spawn(|| root.mmio_write(MmioAddress(ECAM), 1 << 15 | 4, &[0, 0]));
        has_begun.recv().unwrap();
        // These return while the write is held.
        assert_eq!(read_ecam(root, 2, 0, 4, 2), [4, 5]);
        assert_eq!(read_memory(root, BASE + 32, 2), [0x80, 0x81]);
        assert_eq!(read_memory(root, BASE + 16, 2), [0xff, 0xff]);
        // This one finds decode gone, whether it waited for the write or came after it.
        let late = scope.spawn(|| read_memory(root, BASE, 2));
        leave.send(()).unwrap();
        assert_eq!(late.join().unwrap(), [0xff, 0xff]);
    });
}

#[test]
fn a_stop_waits_for_accesses_under_way() {
    let (begun, has_begun) = channel();
    let (leave, may_leave) = channel();
    let slow = Echo {
        hold: Some((begun, may_leave)),
        ..Echo::default()
    };
    let log = slow.log.clone();
    let mut root = root();
    root.add(1, 0, Box::new(slow)).unwrap();
    let root = &root;
    thread::scope(|scope| {
        scope.spawn(|| root.mmio_write(MmioAddress(ECAM), 1 << 15 | 4, &[0, 0]));
        has_begun.recv().unwrap();
        let stop = scope.spawn(|| {
            root.stop();
            log.lock().unwrap().len()
        });
        // The stop has begun when the host bridge is gone.
        while read_ecam(root, 0, 0, 0, 1) != [0xff] {
            thread::yield_now();
        }
        for _ in 0..100 {
            thread::yield_now();
        }
        leave.send(()).unwrap();
        assert_eq!(stop.join().unwrap(), 2, "the write had begun and ended");
    });
}

/// Answers at `BASE` while the flag is set.
struct Switched(Arc<AtomicBool>);

impl PciFunction for Switched {
    fn config_read(&mut self, _: u16, data: &mut [u8]) {
        data.fill(0);
    }

    fn config_write(&mut self, _: u16, data: &[u8]) {
        self.0.store(data[0] != 0, Ordering::SeqCst);
    }

    fn windows(&self) -> Windows {
        let on = self.0.load(Ordering::SeqCst);
        if on {
            Echo::at(Space::Memory, BASE).windows
        } else {
            Windows::default()
        }
    }

    fn bar_read(&mut self, _: Region, _: u64, data: &mut [u8]) {
        data.fill(0x11);
    }

    fn bar_write(&mut self, _: Region, _: u64, data: &[u8]) {
        self.0.store(data[0] != 0, Ordering::SeqCst);
    }

    fn reset(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

#[test]
fn windows_follow_every_access() {
    let mut root = root();
    root.add(1, 0, Box::new(Switched(Arc::default()))).unwrap();
    let switch = |on| root.mmio_write(MmioAddress(ECAM), 1 << 15, &[on]);
    assert_eq!(read_memory(&root, BASE, 1), [0xff]);
    switch(1);
    assert_eq!(read_memory(&root, BASE, 1), [0x11]);
    switch(0);
    assert_eq!(read_memory(&root, BASE, 1), [0xff]);
    switch(1);
    root.mmio_write(MmioAddress(BASE), 0, &[0]);
    assert_eq!(read_memory(&root, BASE, 1), [0xff]);
    switch(1);
    root.reset();
    assert_eq!(read_memory(&root, BASE, 1), [0xff]);
}

#[test]
fn a_function_that_stopped_answering_meanwhile_is_not_asked() {
    let mut root = root();
    let on = Arc::new(AtomicBool::new(true));
    root.add(1, 0, Box::new(Switched(on.clone()))).unwrap();
    on.store(false, Ordering::SeqCst);
    assert_eq!(read_memory(&root, BASE, 1), [0xff]);
}

#[test]
fn many_threads_do_not_lock_one_another_out() {
    let mut root = root();
    for device in 1..32 {
        let base = BASE + 32 * u64::from(device);
        root.add(device, 0, Box::new(Echo::at(Space::Memory, base)))
            .unwrap();
    }
    let root = &root;
    thread::scope(|scope| {
        for thread in 0..32_u64 {
            scope.spawn(move || {
                for round in 0..200 {
                    let device = 1 + (thread * 7 + round) % 31;
                    let address = device << 15 | 4;
                    root.mmio_write(MmioAddress(ECAM), address, &[0; 4]);
                    assert_eq!(read_memory(root, BASE + 32 * device, 1), [0x80]);
                    let selected = 0x8000_0000 | device << 11;
                    let selected = u32::try_from(selected).unwrap();
                    write_port(root, 0xcf8, &selected.to_le_bytes());
                    let _ = read_port(root, 0xcfc, 4);
                }
            });
        }
    });
}
