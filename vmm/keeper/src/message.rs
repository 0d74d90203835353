// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages between monitor, keeper and other commands.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use address::Bdf;
use iommufd_backend::{Because, Leftover};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::channel::Channel;

/// Most parts of a file in a request: they fit in a packet, however long their numbers are.
pub(crate) const MAX_PARTS: usize = 512;

/// Longest reason, in characters, that is taken from elsewhere.
const MAX_REASON_LEN: usize = 400;

/// A device for which memory is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The device.
    #[serde(with = "name")]
    pub bdf: Bdf,
    /// The bridge that it was behind.
    #[serde(with = "optional_name")]
    pub parent: Option<Bdf>,
    /// Whether that bridge reported it in its slot.
    pub seen_in_slot: bool,
    /// Whether its user has accepted that it cannot be reset.
    pub accepted: bool,
    /// Whether its user opened it through its group.
    #[serde(default)]
    pub through_group: bool,
    /// Why there is no evidence that it is quiet; empty until it was checked.
    pub why: String,
}

impl Kept {
    /// The device, for which there is no evidence for the reason `why`.
    #[must_use]
    pub fn new(device: &Leftover, why: String) -> Self {
        Self {
            bdf: device.bdf,
            parent: device.parent,
            seen_in_slot: device.seen_in_slot,
            accepted: device.accepted,
            through_group: device.through_group,
            why,
        }
    }

    /// What has to be made quiet.
    #[must_use]
    pub fn leftover(&self) -> Leftover {
        Leftover {
            bdf: self.bdf,
            parent: self.parent,
            seen_in_slot: self.seen_in_slot,
            accepted: self.accepted,
            through_group: self.through_group,
        }
    }
}

/// A device that the keeper made quiet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settled {
    /// The device.
    #[serde(with = "name")]
    pub(crate) bdf: Bdf,
    /// How.
    #[serde(with = "BecauseText")]
    pub(crate) because: Because,
}

/// [`Because`] in messages.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Because", rename_all = "kebab-case")]
enum BecauseText {
    Reset(String),
    Gone,
    Accepted,
}

/// What a keeper keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Bytes of guest memory.
    pub bytes: u64,
    /// The devices that may write to it.
    pub devices: Vec<Kept>,
}

impl Status {
    /// The same with reasons fit to be shown: without control characters, and not endless.
    #[must_use]
    pub(crate) fn fit_to_show(mut self) -> Self {
        for device in &mut self.devices {
            let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
            let letters = device.why.chars().take(MAX_REASON_LEN);
            device.why = letters.map(plain).collect();
        }
        self
    }
}

impl fmt::Display for Status {
    /// As `128 MiB for 0000:01:00.0 (reason)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB for ", self.bytes >> 20)?;
        for (number, device) in self.devices.iter().enumerate() {
            let between = if number > 0 { ", " } else { "" };
            write!(f, "{between}{}", device.bdf)?;
            if !device.why.is_empty() {
                write!(f, " ({})", device.why)?;
            }
        }
        Ok(())
    }
}

/// A request to a keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// By the monitor, first: these devices will be bound to the `/dev/iommu` beside it. Without one they will be opened
    /// through their groups, and the keeper has to pin memory itself.
    Hold {
        /// The devices.
        devices: Vec<Kept>,
    },
    /// By the monitor: these parts of the file beside it are to be pinned.
    Pin {
        /// They do not overlap, and none is empty.
        parts: Vec<Range<u64>>,
    },
    /// By the monitor: memory, the file beside it, is pinned. Nothing more will be.
    Memory {
        /// Bytes.
        bytes: u64,
    },
    /// By the monitor: it hands devices and memory over to the process of the pidfd beside this, which is the monitor
    /// from now on.
    Watch,
    /// By the monitor: these devices, which are closed, could not be made quiet while they were open.
    Settle {
        /// The devices.
        devices: Vec<Kept>,
    },
    /// By the monitor: all devices are quiet and memory is released.
    Released,
    /// By the monitor: these devices are not quiet, the others are.
    Keep {
        /// The devices.
        devices: Vec<Kept>,
    },
    /// From any process: what is kept?
    Status,
    /// From the process that has reset the device: it is quiet.
    Release {
        /// The device.
        #[serde(with = "name")]
        bdf: Bdf,
    },
}

/// What a keeper answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// To [`Request::Hold`], [`Request::Pin`], [`Request::Watch`] and [`Request::Keep`]: it does.
    Ready {
        /// Whether others find it.
        found: bool,
    },
    /// To [`Request::Settle`]: all devices that it named.
    Settled {
        /// Those that are quiet now.
        quiet: Vec<Settled>,
        /// Those for which there is no evidence, and why.
        kept: Vec<Kept>,
    },
    /// To [`Request::Status`] and [`Request::Release`]: what is kept now.
    Status(Status),
    /// It does not.
    Refused {
        /// Why.
        why: String,
    },
}

impl Answer {
    /// What came of a request that others need not find the keeper for; why not as the error.
    pub(crate) fn of(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Self::Ready { found: false },
            Err(why) => Self::Refused { why },
        }
    }
}

/// Sends `request` through `channel` and waits for the answer.
pub(crate) fn ask(
    channel: &Channel,
    request: &Request,
    files: &[BorrowedFd<'_>],
) -> io::Result<Answer> {
    channel.send(request, files)?;
    let (answer, _) = channel
        .receive()?
        .ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
    Ok(answer)
}

/// A device's name as text.
mod name {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bdf: &Bdf, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(bdf)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bdf, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The same, or null.
mod optional_name {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bdf: &Option<Bdf>, out: S) -> Result<S::Ok, S::Error> {
        bdf.map(|bdf| bdf.to_string()).serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bdf>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let parsed = text.map(|text| text.parse().map_err(serde::de::Error::custom));
        parsed.transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn kept(why: &str) -> Kept {
        Kept {
            bdf: "0000:01:00.0".parse().unwrap(),
            parent: Some("0000:00:08.0".parse().unwrap()),
            seen_in_slot: false,
            accepted: false,
            through_group: false,
            why: why.into(),
        }
    }

    #[test]
    fn messages_come_with_their_files_until_the_end() {
        let (one, other) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let hold = Request::Hold {
            devices: vec![kept("")],
        };
        one.send(&hold, &[file.as_fd()]).unwrap();
        one.send(&Request::Released, &[]).unwrap();
        let (message, files) = other.receive::<Request>().unwrap().unwrap();
        assert_eq!((message, files.len()), (hold, 1));
        let (message, files) = other.receive::<Request>().unwrap().unwrap();
        assert_eq!((message, files.len()), (Request::Released, 0));
        drop(one);
        assert!(other.receive::<Request>().unwrap().is_none());
    }

    #[test]
    fn the_most_parts_of_a_file_fit_in_a_packet() {
        let (one, other) = Channel::pair().unwrap();
        let pin = Request::Pin {
            parts: vec![u64::MAX - 1..u64::MAX; MAX_PARTS],
        };
        one.send(&pin, &[]).unwrap();
        assert_eq!(other.receive::<Request>().unwrap().unwrap().0, pin);
    }

    #[test]
    fn nonsense_is_an_error_and_the_next_message_is_read() {
        let (one, other) = Channel::pair().unwrap();
        one.send(&"nonsense", &[]).unwrap();
        one.send(&serde_json::json!({"what": "release", "bdf": "../x"}), &[])
            .unwrap();
        one.send(&Request::Status, &[]).unwrap();
        for _ in 0..2 {
            let error = other.receive::<Request>().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        assert!(other.receive::<Request>().unwrap().is_some());
    }

    #[test]
    fn reasons_from_elsewhere_are_fit_to_show() {
        let status = Status {
            bytes: 128 << 20,
            devices: vec![kept("\x1b[2Jgone\n"), kept(&"x".repeat(10_000))],
        };
        let shown = status.fit_to_show();
        let text = shown.to_string();
        assert!(text.starts_with("128 MiB for 0000:01:00.0 ( [2Jgone ), "));
        assert!(text.len() < 1000);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = serde_json::from_slice::<Request>(&bytes);
            let _ = serde_json::from_slice::<Answer>(&bytes);
        }
    }
}
