// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Passes the guest's output to a reader that may be slow, paused or gone, without making the guest
//! wait.
//!
//! A thread writes what is in a bounded queue. While the reader takes nothing the queue fills up;
//! then its oldest bytes make room, and the reader sees how many it missed.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::confine::{Confinement, ThreadKind};
use crate::run::threads::{self, Confined, ThreadError};

/// Bytes that wait for a reader at most.
pub const CAPACITY: usize = 1 << 20;

/// Bytes that are written at once at most.
const CHUNK: usize = 4096;

/// How long more bytes are waited for once there are some. The guest writes them one by one, each in an exit: a write
/// and a wake-up for each cost more than the exit.
const GATHERING: Duration = Duration::from_millis(1);

/// A reader gets so long in the end to take the rest.
const LAST_CALL: Duration = Duration::from_secs(5);

/// The thread that writes, and its queue. Dropping it lets the reader take the rest, as long as
/// it takes any.
#[derive(Debug)]
pub struct Pump {
    shared: Arc<Shared>,
    patience: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Where the thread will write to.
    Waiting(OwnedFd),
    /// The thread.
    Running(JoinHandle<Option<()>>),
    /// Neither is there any more.
    Over,
}

/// The end that the guest writes to; never waits and never fails.
#[derive(Clone, Debug)]
pub struct PumpWriter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: VecDeque<u8>,
    /// Bytes that made room since the last notice to the reader.
    lost: u64,
    /// Times that the reader took something.
    progress: u64,
    /// Nothing more is to come.
    ending: bool,
    /// The thread takes nothing any more.
    closed: bool,
}

impl Queue {
    /// Adds `bytes`; the oldest make room.
    fn push(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(CAPACITY)..];
        let over = (self.bytes.len() + kept.len()).saturating_sub(CAPACITY);
        self.bytes.drain(..over);
        self.bytes.extend(kept);
        let lost = over + (bytes.len() - kept.len());
        self.lost = self.lost.saturating_add(lost as u64);
    }

    /// Whether more may come that goes into the same write.
    fn gathers(&self) -> bool {
        !self.ending && self.bytes.len() < CHUNK
    }

    /// What is to be written next, with a word about what is missing before it.
    fn take(&mut self) -> Vec<u8> {
        let mut chunk = Vec::new();
        if self.lost > 0 {
            chunk.extend(format!("\r\n[pinvisor: {} bytes lost]\r\n", self.lost).as_bytes());
            self.lost = 0;
        }
        let count = self.bytes.len().min(CHUNK);
        chunk.extend(self.bytes.drain(..count));
        chunk
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next bytes for the reader, or none in the end.
    fn next(&self) -> Option<Vec<u8>> {
        let mut queue = self.lock();
        loop {
            if !queue.bytes.is_empty() {
                // Nothing but the end is notified of meanwhile.
                let gathered = self
                    .changed
                    .wait_timeout_while(queue, GATHERING, |queue| queue.gathers());
                let (mut queue, _) = gathered.unwrap_or_else(PoisonError::into_inner);
                return Some(queue.take());
            }
            if queue.ending {
                return None;
            }
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self, target: &OwnedFd) {
        let result = loop {
            match self.next() {
                None => break Ok(()),
                Some(chunk) => {
                    if let Err(error) = self.write(target, &chunk) {
                        break Err(error);
                    }
                }
            }
        };
        if let Err(error) = result {
            log::warn!("Further output of the guest is lost: {error}");
        }
        let mut queue = self.lock();
        queue.closed = true;
        queue.bytes = VecDeque::new();
        drop(queue);
        self.changed.notify_all();
    }

    fn write(&self, target: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(target, bytes) {
                Ok(count) => {
                    bytes = &bytes[count..];
                    let mut queue = self.lock();
                    queue.progress += 1;
                    // Nothing waits for progress before the end.
                    let is_watched = queue.ending;
                    drop(queue);
                    if is_watched {
                        self.changed.notify_all();
                    }
                }
                Err(Errno::INTR) => {}
                // Another process that has it made it non-blocking.
                Err(Errno::AGAIN) => {
                    let _ = poll(&mut [PollFd::new(target, PollFlags::OUT)], None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Pump {
    /// One that will write to `target`, whose reader is not waited for in the end once it has taken nothing for `patience`.
    #[must_use]
    pub fn new(target: OwnedFd, patience: Duration) -> Self {
        Self {
            shared: Arc::default(),
            patience,
            state: State::Waiting(target),
        }
    }

    /// Starts the thread, unless it runs. The signals that the main thread [takes over](crate::run::event_loop::Signals::take)
    /// must be blocked already.
    ///
    /// # Errors
    /// [`ThreadError`]; nothing more is written then.
    pub fn start(&mut self, confinement: &Confinement) -> Result<(), ThreadError> {
        let target = match mem::replace(&mut self.state, State::Over) {
            State::Waiting(target) => target,
            state => {
                self.state = state;
                return Ok(());
            }
        };
        let working = Arc::clone(&self.shared);
        let name = "serial-output".to_owned();
        let thread = threads::start(name, confinement, ThreadKind::SerialOutput, move || {
            // A terminal may stop a process in the background that writes to it, and the guest with it (`stty tostop`).
            let stop: SigSet = [Signal::SIGTTOU].into_iter().collect();
            let _ = stop.thread_block();
            working.work(&target);
        });
        let Confined { thread, .. } = thread?;
        self.state = State::Running(thread);
        Ok(())
    }

    /// An end to write to.
    #[must_use]
    pub fn writer(&self) -> PumpWriter {
        PumpWriter(Arc::clone(&self.shared))
    }

    /// Waits until the reader has everything or takes nothing; whether it has everything, or is
    /// gone.
    fn drain(&self) -> bool {
        let began = Instant::now();
        let mut queue = self.shared.lock();
        queue.ending = true;
        self.shared.changed.notify_all();
        while !queue.closed {
            let before = queue.progress;
            let waited = self.shared.changed.wait_timeout(queue, self.patience);
            let (after, result) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = after;
            let stuck = result.timed_out() && queue.progress == before;
            if !queue.closed && (stuck || began.elapsed() > LAST_CALL) {
                return false;
            }
        }
        true
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        let State::Running(thread) = mem::replace(&mut self.state, State::Over) else {
            return;
        };
        if self.drain() {
            // The thread has nothing left to wait for.
            drop(thread.join());
        } else {
            // It is stuck in a write, and ends with the process.
            log::info!("The end of the guest's output is lost: the reader does not read");
        }
    }
}

impl Write for PumpWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut queue = self.0.lock();
        if !queue.closed {
            let idle = queue.bytes.is_empty();
            queue.push(bytes);
            drop(queue);
            if idle {
                self.0.changed.notify_all();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(200);

    fn started(target: UnixStream) -> Pump {
        let mut pump = Pump::new(target.into(), TIMEOUT);
        pump.start(&Confinement::default()).unwrap();
        pump
    }

    #[test]
    fn everything_arrives_in_order() {
        let (mut reader, target) = UnixStream::pair().unwrap();
        let pump = started(target);
        let mut writer = pump.writer();
        for byte in b"one\ntwo\n" {
            writer.write_all(&[*byte]).unwrap();
        }
        drop(pump);
        let mut got = String::new();
        reader.read_to_string(&mut got).unwrap();
        assert_eq!(got, "one\ntwo\n");
    }

    #[test]
    fn what_is_written_before_the_start_arrives_once() {
        let (mut reader, target) = UnixStream::pair().unwrap();
        let mut pump = Pump::new(target.into(), TIMEOUT);
        pump.writer().write_all(b"early").unwrap();
        for _ in 0..2 {
            pump.start(&Confinement::default()).unwrap();
        }
        drop(pump);
        let mut got = String::new();
        reader.read_to_string(&mut got).unwrap();
        assert_eq!(got, "early");
    }

    #[test]
    fn one_that_never_started_ends_at_once() {
        let (mut reader, target) = UnixStream::pair().unwrap();
        let pump = Pump::new(target.into(), Duration::MAX);
        pump.writer().write_all(b"unheard").unwrap();
        drop(pump);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn the_oldest_bytes_make_room_and_are_counted() {
        let mut queue = Queue::default();
        queue.push(&vec![b'a'; CAPACITY - 1]);
        queue.push(b"bcd");
        assert_eq!((queue.bytes.len(), queue.lost), (CAPACITY, 2));
        queue.push(&vec![b'e'; CAPACITY + 3]);
        assert_eq!(queue.lost, 2 + CAPACITY as u64 + 3);
        assert!(queue.bytes.iter().all(|byte| *byte == b'e'));
        let first = queue.take();
        let words = format!("\r\n[pinvisor: {} bytes lost]\r\n", CAPACITY + 5);
        assert!(first.starts_with(words.as_bytes()));
        assert!(queue.take().starts_with(b"eee"), "said once");
    }

    #[test]
    fn a_reader_that_takes_nothing_does_not_block() {
        let (_reader, target) = UnixStream::pair().unwrap();
        let pump = started(target);
        let mut writer = pump.writer();
        for _ in 0..4 {
            writer.write_all(&vec![0; CAPACITY]).unwrap();
        }
        assert!(!pump.drain());
    }

    #[test]
    fn a_reader_that_is_gone_does_not_block() {
        let (reader, target) = UnixStream::pair().unwrap();
        drop(reader);
        let pump = started(target);
        let mut writer = pump.writer();
        writer.write_all(b"lost").unwrap();
        assert!(pump.drain());
        writer.write_all(b"lost, too").unwrap();
        assert!(writer.0.lock().bytes.is_empty());
    }
}
