// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Frames that reach every network interface on a wire, sent by the build machine: the test machine needs no driver for
//! that, nor a processor that is free.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;

/// Between two frames: enough for receive rings to fill within some seconds, few enough for guests to do other work.
const PAUSE: Duration = Duration::from_millis(10);

/// A broadcast frame, from an address that no device has, of a protocol for experiments (IEEE 802, 0x88b5), as long as most.
const HEADER: [u8; 14] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5,
];
const LENGTH: usize = 1400;

/// A sender; ends when dropped.
#[derive(Debug)]
pub struct Traffic {
    folder: TempDir,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Starts it.
    pub fn start() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = UnixDatagram::bind(here(folder.path()))?;
        socket.set_nonblocking(true)?;
        let ends = Arc::new(AtomicBool::new(false));
        let (ended, to) = (Arc::clone(&ends), machines(folder.path()));
        let thread = thread::spawn(move || {
            let frame: Vec<u8> = HEADER.into_iter().chain([0xa5; LENGTH]).collect();
            while !ended.load(Ordering::Relaxed) {
                // Before the machine is there, and when it takes no more, nothing is sent.
                let _ = socket.send_to(&frame, &to);
                // Frames of other senders do not count.
                while socket.recv(&mut [0; 1]).is_ok() {}
                thread::sleep(PAUSE);
            }
        });
        Ok(Self {
            folder,
            ends,
            thread: Some(thread),
        })
    }

    /// Its end of the wire, as QEMU's `-netdev` takes it, with the ID `traffic`.
    pub fn netdev(&self) -> String {
        let end = |name: &str, path: PathBuf| {
            let path = path.to_string_lossy().replace(',', ",,");
            format!(",{name}.type=unix,{name}.path={path}")
        };
        let folder = self.folder.path();
        let ends = [end("local", machines(folder)), end("remote", here(folder))];
        ["dgram,id=traffic", &ends.concat()].concat()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn here(folder: &Path) -> PathBuf {
    folder.join("here")
}

fn machines(folder: &Path) -> PathBuf {
    folder.join("machine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_whatever_is_sent_back() {
        let traffic = Traffic::start().unwrap();
        let folder = traffic.folder.path();
        let machine = UnixDatagram::bind(machines(folder)).unwrap();
        let mut frame = [0; 2000];
        for _ in 0..3 {
            let len = machine.recv(&mut frame).unwrap();
            assert_eq!((&frame[..14], len), (&HEADER[..], 14 + LENGTH));
            machine.send_to(&frame[..len], here(folder)).unwrap();
        }
        assert!(
            traffic
                .netdev()
                .starts_with("dgram,id=traffic,local.type=unix,local.path=/")
        );
    }
}
