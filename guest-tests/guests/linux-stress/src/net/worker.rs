// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One thread's work on a network interface.

use std::io::{self, Read, Write};

use stress_format::FindingKind;

use super::http;
use crate::disk::worker::Shared;
use crate::meter::Tally;
use crate::tsc;

/// After so many errors in a row a thread gives up.
const MAX_ERRORS: u32 = 4;

/// Least and most bytes that are sent at once.
const SENT: std::ops::RangeInclusive<usize> = 1 << 16..=1 << 20;

/// Bytes go to the server or come from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the server.
    Down,
    /// To the server.
    Up,
}

/// A thread that connects by calling `connect`.
pub struct Worker<'a, C> {
    /// Makes a connection to the server.
    pub connect: C,
    /// The server's name, for its ears.
    pub host: String,
    /// The interface's number.
    pub engine: u64,
    /// Counts and findings.
    pub shared: Shared<'a>,
    /// Whether the time that a request takes is a latency of this run.
    pub timed: bool,
}

impl<C> std::fmt::Debug for Worker<'_, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

/// What was wrong with a request.
enum Problem {
    Failed(io::Error),
    Differs(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl<S: Read + Write, C: Fn() -> io::Result<S>> Worker<'_, C> {
    /// Requests for as long as `goes_on`, which is asked with the number of those that were made. Returns how many
    /// had something wrong, and 1 if none was made.
    pub fn run(
        &self,
        direction: Direction,
        seed: u64,
        goes_on: &(dyn Fn(u64) -> bool + Sync),
    ) -> u64 {
        let (mut done, mut problems, mut errors_in_a_row) = (0, 0, 0);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut first = None;
        let mut tally = Tally::default();
        while goes_on(done) && errors_in_a_row < MAX_ERRORS {
            let began = tsc::now();
            let result = match direction {
                Direction::Down => self.fetch(&mut first),
                Direction::Up => self.send(&mut rng),
            };
            if self.timed {
                tally.histogram.add(tsc::now().wrapping_sub(began));
            }
            done += 1;
            self.shared.meter.transfer();
            match result {
                Ok(()) => errors_in_a_row = 0,
                Err(problem) => {
                    problems += 1;
                    errors_in_a_row += 1;
                    self.tell(direction, &problem);
                }
            }
        }
        self.shared.meter.add(&tally);
        problems.max(u64::from(done == 0))
    }

    fn fetch(&self, first: &mut Option<String>) -> Result<(), Problem> {
        let mut moved = |bytes| self.shared.meter.moved(bytes);
        let fetched = http::get((self.connect)()?, &self.host, &mut moved)?;
        let wanted = fetched.announced.as_ref().or(first.as_ref());
        if let Some(wanted) = wanted
            && *wanted != fetched.sha256
        {
            return Err(Problem::Differs(format!(
                "the SHA-256 of {} bytes fetched is {}, not {wanted}",
                fetched.bytes, fetched.sha256
            )));
        }
        first.get_or_insert(fetched.sha256);
        Ok(())
    }

    fn send(&self, rng: &mut fastrand::Rng) -> Result<(), Problem> {
        let mut body = vec![0; rng.usize(SENT)];
        rng.fill(&mut body);
        let answer = http::post((self.connect)()?, &self.host, &body)?;
        self.shared.meter.moved(body.len());
        let wanted = http::sha256(&body);
        if answer == wanted {
            return Ok(());
        }
        Err(Problem::Differs(format!(
            "the server got {} bytes with the SHA-256 {answer:?}, not {wanted}",
            body.len()
        )))
    }

    fn tell(&self, direction: Direction, problem: &Problem) {
        let way = match direction {
            Direction::Down => "down",
            Direction::Up => "up",
        };
        let (kind, text) = match problem {
            Problem::Differs(text) => {
                self.shared.meter.mismatch();
                (FindingKind::Mismatch, text.clone())
            }
            Problem::Failed(error) => match error.kind() {
                // A read or write that ended by its time-out returns WouldBlock.
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                    (FindingKind::Timeout, error.to_string())
                }
                _ => (FindingKind::DeviceError, error.to_string()),
            },
        };
        let text = format!("{way}: {text}");
        self.shared.report.failure(kind, self.engine, &text);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::meter::Meter;
    use crate::report::testing::Lines;

    /// A server that gets `asked` and answers with what `respond` makes of it and the connection's number.
    struct Stream {
        number: u64,
        asked: Vec<u8>,
        answer: Option<io::Cursor<Vec<u8>>>,
        respond: fn(u64, &[u8]) -> Vec<u8>,
    }

    impl Read for Stream {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let answer = self
                .answer
                .get_or_insert_with(|| io::Cursor::new((self.respond)(self.number, &self.asked)));
            answer.read(into)
        }
    }

    impl Write for Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.asked.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn run(direction: Direction, respond: fn(u64, &[u8]) -> Vec<u8>) -> (u64, u64, String) {
        let (lines, meter) = (Lines::default(), Meter::new());
        let report = lines.report();
        let connections = AtomicU64::new(0);
        let worker = Worker {
            connect: || {
                Ok(Stream {
                    number: connections.fetch_add(1, Ordering::Relaxed),
                    asked: Vec::new(),
                    answer: None,
                    respond,
                })
            },
            host: "x".into(),
            engine: 3,
            shared: Shared {
                meter: &meter,
                report: &report,
                pagemap: None,
            },
            timed: true,
        };
        let problems = worker.run(direction, 1, &|done| done < 5);
        (problems, meter.totals().bytes, lines.text())
    }

    fn respond(body: &[u8]) -> Vec<u8> {
        [b"HTTP/1.0 200 OK\r\n\r\n", body].concat()
    }

    fn posted_hash(asked: &[u8]) -> String {
        let body = asked
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap()
            + 4;
        http::sha256(&asked[body..])
    }

    #[test]
    fn equal_answers_are_well_and_a_different_one_is_not() {
        let (problems, bytes, text) = run(Direction::Down, |_, _| respond(b"abcd"));
        assert_eq!((problems, bytes, text.as_str()), (0, 20, ""));
        let (problems, _, text) = run(Direction::Down, |number, _| {
            respond(if number == 3 { b"abce" } else { b"abcd" })
        });
        assert_eq!(problems, 1);
        assert!(
            text.contains("kind=mismatch engine=3") && text.contains("down: the SHA-256"),
            "{text}"
        );
    }

    #[test]
    fn what_was_announced_counts() {
        let (problems, _, _) = run(Direction::Down, |_, _| {
            b"HTTP/1.0 200 OK\r\nX-SHA256: 00\r\n\r\nabc".to_vec()
        });
        assert_eq!(problems, 4);
    }

    #[test]
    fn what_is_sent_must_arrive() {
        let (problems, bytes, _) = run(Direction::Up, |_, asked| {
            respond(posted_hash(asked).as_bytes())
        });
        assert_eq!(problems, 0);
        assert!(bytes >= 5 << 16);
        let (problems, _, text) = run(Direction::Up, |number, asked| {
            let lost = usize::from(number == 2);
            respond(posted_hash(&asked[..asked.len() - lost]).as_bytes())
        });
        assert_eq!(problems, 1);
        assert!(text.contains("up: the server got"), "{text}");
    }

    #[test]
    fn a_dead_server_is_given_up() {
        let (problems, _, text) = run(Direction::Up, |_, _| Vec::new());
        assert_eq!(problems, 4);
        assert!(text.contains("kind=device-error"), "{text}");
    }
}
