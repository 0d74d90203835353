// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Events of a run, for programs: one JSON object per line, as `docs/reference/events.md`
//! documents.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use address::Bdf;
use rustix::fs::OFlags;
use serde::{Serialize, Serializer};

use crate::config::HostConfig;
use crate::fatal;
use crate::inherited::{self, FIRST_FREE};
use vmm::console::nonblocking::Unblocked;

/// A run panicked: Rust's own exit code for that.
const PANIC_CODE: u8 = 101;

/// The events cannot go where they shall.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// A standard descriptor.
    #[error("--event-fd {0}: descriptors 0 to 2 are standard input, output and error")]
    Standard(u32),
    /// Not a descriptor that can be written to.
    #[error("--event-fd {number}: the descriptor {reason}")]
    Descriptor {
        /// As given.
        number: u32,
        /// What it is instead.
        reason: &'static str,
    },
    /// A file that cannot be opened.
    #[error("Cannot open the event file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl EventsError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Standard(_) => {
                Some("use descriptor 3 or higher, or --event-file /dev/stderr".to_owned())
            }
            Self::Descriptor { number, .. } => Some(format!(
                "open it for writing when starting Pinvisor: pinvisor run --event-fd {number} ... {number}>events"
            )),
            Self::File { .. } => None,
        }
    }
}

/// What happens.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event<'a> {
    /// The options are right; devices and memory come next.
    Started {
        /// The process.
        pid: u32,
        /// Of Pinvisor, as `--version` prints it.
        version: &'a str,
        /// Milliseconds since 1970.
        unix_time_ms: u64,
    },
    /// The guest runs.
    Ready {
        /// Where the serial port is, if it is a pseudoterminal or a socket.
        #[serde(skip_serializing_if = "Option::is_none")]
        serial: Option<&'a Path>,
    },
    /// The guest requested a restart and is booted again: everything was released.
    Restart,
    /// A passed-through device failed, which ends the guest.
    DeviceError {
        /// The device.
        #[serde(serialize_with = "as_text")]
        device: Bdf,
        /// Its report.
        message: &'a str,
    },
    /// Everything is released. The last event.
    Shutdown {
        /// Why, as a word.
        reason: &'a str,
        /// Details as text, if any.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
        /// The signal, if one was the reason.
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
        /// The process's exit code.
        exit_code: u8,
    },
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes fields like that"
)]
fn as_text<S: Serializer>(bdf: &Bdf, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(bdf)
}

#[derive(Serialize)]
struct Line<'a> {
    time_ms: u64,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// Where the events go. A reader that does not read, or is gone, misses them: a run does not wait for it.
#[derive(Debug)]
pub struct EventLog {
    began: Instant,
    targets: Vec<Unblocked<OwnedFd>>,
    /// Started, and not ended yet.
    open: bool,
}

impl Default for EventLog {
    /// Events that go nowhere.
    fn default() -> Self {
        Self {
            began: Instant::now(),
            targets: Vec::new(),
            open: false,
        }
    }
}

impl EventLog {
    /// Takes the descriptor and opens the file that `config` names. To be called before this
    /// process opens anything that stays open, so that the number cannot mean that.
    ///
    /// # Errors
    /// [`EventsError`]
    pub fn open(config: &HostConfig) -> Result<Self, EventsError> {
        let mut targets = Vec::new();
        if let Some(number) = config.event_fd {
            targets.push(descriptor(number)?);
        }
        if let Some(path) = &config.event_file {
            targets.push(file(path).map_err(|source| EventsError::File {
                path: path.clone(),
                source,
            })?);
        }
        Ok(Self {
            targets: unblocked(targets),
            ..Self::default()
        })
    }

    /// Lets a fatal signal write the last event.
    fn watch_signals(&self) {
        let copies = self.targets.iter().map(Unblocked::try_clone);
        match copies.collect::<io::Result<Vec<_>>>() {
            Ok(copies) => fatal::watch(self.began, copies),
            Err(error) => log::warn!(
                "Cannot install the handler that writes the last event on a fatal signal: {error}"
            ),
        }
    }

    /// Writes `event`.
    pub fn record(&mut self, event: &Event<'_>) {
        self.open = !matches!(event, Event::Shutdown { .. });
        if !self.open {
            fatal::forget();
        }
        let line = Line {
            time_ms: milliseconds(self.began.elapsed()),
            event,
        };
        let mut text = match serde_json::to_string(&line) {
            Ok(text) => text,
            // A path that is not UTF-8.
            Err(error) => return log::warn!("Cannot serialise an event: {error}"),
        };
        text.push('\n');
        self.targets.retain_mut(|target| {
            let result = target.write_all(text.as_bytes());
            if let Err(error) = &result {
                log::warn!("Cannot write events, so later ones are dropped: {error}");
            }
            result.is_ok()
        });
    }

    /// Writes the event of the start.
    pub fn started(&mut self) {
        self.watch_signals();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.record(&Event::Started {
            pid: std::process::id(),
            version: crate::VERSION,
            unix_time_ms: milliseconds(now.unwrap_or_default()),
        });
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        if self.open {
            self.record(&Event::Shutdown {
                reason: "panic",
                message: None,
                signal: None,
                exit_code: PANIC_CODE,
            });
        }
    }
}

/// Without a wait for readers.
fn unblocked(targets: Vec<OwnedFd>) -> Vec<Unblocked<OwnedFd>> {
    let targets = targets.into_iter();
    targets
        .map(|target| Unblocked::new(target, Duration::ZERO))
        .collect()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A descriptor of this process's own for what the caller opened as `number`.
fn descriptor(number: u32) -> Result<OwnedFd, EventsError> {
    if number < FIRST_FREE {
        return Err(EventsError::Standard(number));
    }
    let unfit = |reason| EventsError::Descriptor { number, reason };
    let (descriptor, flags) = inherited::descriptor(number).map_err(unfit)?;
    if flags.contains(OFlags::PATH) || flags & OFlags::ACCMODE == OFlags::RDONLY {
        return Err(unfit("is not open for writing"));
    }
    Ok(descriptor)
}

/// Opened for appending, without waiting for the reader of a FIFO.
fn file(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options()
        .append(true)
        .create(true)
        .custom_flags(flags)
        .open(path)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use serde_json::{Value, json};

    use super::*;

    fn recorded(config: &HostConfig, record: impl FnOnce(&mut EventLog)) {
        let mut log = EventLog::open(config).unwrap();
        record(&mut log);
    }

    fn to_file(record: impl FnOnce(&mut EventLog)) -> Vec<Value> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = HostConfig {
            event_file: Some(file.path().to_owned()),
            ..HostConfig::default()
        };
        recorded(&config, record);
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(text.ends_with('\n'));
        let lines = text.lines().map(serde_json::from_str);
        lines
            .map(|line| {
                let mut line: Value = line.unwrap();
                assert!(line.as_object_mut().unwrap()["time_ms"].is_u64());
                line.as_object_mut().unwrap().remove("time_ms");
                line
            })
            .collect()
    }

    const OFF: Event<'_> = Event::Shutdown {
        reason: "signal",
        message: None,
        signal: Some(15),
        exit_code: 0,
    };

    #[test]
    fn events_have_the_documented_shape() {
        let bdf = "0000:01:00.0".parse().unwrap();
        let lines = to_file(|log| {
            log.started();
            log.record(&Event::Ready { serial: None });
            log.record(&Event::Ready {
                serial: Some(Path::new("/dev/pts/1")),
            });
            log.record(&Event::DeviceError {
                device: bdf,
                message: "a \"quoted\"\nline",
            });
            log.record(&OFF);
            log.record(&Event::Restart);
            log.record(&OFF);
        });
        assert_eq!(lines[0]["event"], "started");
        assert_eq!(lines[0]["pid"], std::process::id());
        assert!(lines[0]["unix_time_ms"].as_u64() > Some(1_000_000_000_000));
        assert_eq!(lines[1], json!({"event": "ready"}));
        assert_eq!(lines[2], json!({"event": "ready", "serial": "/dev/pts/1"}));
        assert_eq!(
            lines[3],
            json!({"event": "device-error", "device": "0000:01:00.0", "message": "a \"quoted\"\nline"})
        );
        assert_eq!(
            lines[4],
            json!({"event": "shutdown", "reason": "signal", "signal": 15, "exit_code": 0})
        );
        assert_eq!(lines[5], json!({"event": "restart"}));
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn a_run_that_panics_ends_too() {
        let lines = to_file(EventLog::started);
        assert_eq!(
            lines[1],
            json!({"event": "shutdown", "reason": "panic", "exit_code": 101})
        );
    }

    #[test]
    fn a_descriptor_is_used_as_long_as_it_has_a_reader() {
        let (reader, writer) = io::pipe().unwrap();
        let config = HostConfig {
            event_fd: Some(writer.as_raw_fd().cast_unsigned()),
            ..HostConfig::default()
        };
        let mut log = EventLog::open(&config).unwrap();
        log.record(&Event::Ready { serial: None });
        assert_eq!(log.targets.len(), 1);
        drop(reader);
        log.record(&OFF);
        assert_eq!(log.targets.len(), 0);
    }

    #[test]
    fn what_is_no_writable_descriptor_is_refused() {
        let refused = |number: u32| {
            let config = HostConfig {
                event_fd: Some(number),
                ..HostConfig::default()
            };
            let error = EventLog::open(&config).unwrap_err();
            assert!(error.hint().is_some());
            error.to_string()
        };
        for standard in 0..3 {
            assert!(refused(standard).contains("standard"));
        }
        assert!(refused(u32::MAX).contains("does not exist"));
        assert!(refused(1_000_000).contains("not open"));
        let (reader, _writer) = io::pipe().unwrap();
        assert!(refused(reader.as_raw_fd().cast_unsigned()).contains("writing"));
    }
}
