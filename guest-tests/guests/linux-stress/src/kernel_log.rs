// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Kernel messages about devices while they are driven: `/dev/kmsg` (Linux
//! Documentation/ABI/testing/dev-kmsg).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use stress_format::FindingKind;

/// What the drivers' own words mean.
const MEANINGS: &[(&str, FindingKind)] = &[
    // drivers/nvme/host/pci.c, nvme_timeout: the device had answered, its interrupt had not come.
    ("timeout, completion polled", FindingKind::LostInterrupt),
    ("timeout, aborting", FindingKind::Timeout),
    ("timeout, reset controller", FindingKind::Timeout),
    ("timeout, disable controller", FindingKind::Timeout),
    ("controller is down", FindingKind::DeviceError),
    ("invalid id", FindingKind::DeviceError),
    // block/blk-core.c and blk-mq.c
    ("I/O error, dev ", FindingKind::DeviceError),
    ("critical medium error, dev ", FindingKind::DeviceError),
    ("critical target error, dev ", FindingKind::DeviceError),
    // net/sched/sch_generic.c, dev_watchdog
    ("NETDEV WATCHDOG", FindingKind::Timeout),
    // drivers/net/ethernet/intel
    ("Detected Hardware Unit Hang", FindingKind::Timeout),
    ("Detected Tx Unit Hang", FindingKind::Timeout),
    // kernel/irq/spurious.c
    ("nobody cared", FindingKind::DeviceError),
    // Memory that is not what the kernel left there.
    ("BUG: ", FindingKind::Mismatch),
    ("Oops: ", FindingKind::Mismatch),
    ("general protection fault", FindingKind::Mismatch),
    ("list_add corruption", FindingKind::Mismatch),
    ("list_del corruption", FindingKind::Mismatch),
];

/// What a line means, if it is bad news.
#[must_use]
pub fn meaning(line: &str) -> Option<FindingKind> {
    MEANINGS
        .iter()
        .find_map(|(words, kind)| line.contains(words).then_some(*kind))
}

/// The log from some moment on.
#[derive(Debug)]
pub struct KernelLog(File);

impl KernelLog {
    /// The log from now on.
    ///
    /// # Errors
    /// The system's, for instance without `CAP_SYSLOG`.
    pub fn from_now() -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self(file))
    }

    /// The bad news up to now.
    pub fn bad_news(&mut self) -> Vec<(FindingKind, String)> {
        let mut news = Vec::new();
        // A read returns one message, at most 8 KiB (kernel/printk/internal.h, PRINTK_MESSAGE_MAX is less).
        let mut message = vec![0; 8192];
        loop {
            match self.0.read(&mut message) {
                Ok(0) => return news,
                Ok(len) => {
                    let text = String::from_utf8_lossy(&message[..len]);
                    let line = first_line(&text);
                    news.extend(meaning(line).map(|kind| (kind, line.to_string())));
                }
                // Overwritten before it was read; the next read is of the oldest that is left.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(_) => return news,
            }
        }
    }
}

/// The text of a message: between `;` and the end of the line.
fn first_line(message: &str) -> &str {
    let text = message.split_once(';').map_or(message, |(_, text)| text);
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_words_are_understood() {
        let line = "4,1,5,-;nvme nvme0: I/O 12 QID 1 timeout, completion polled\n SUBSYSTEM=pci\n";
        assert_eq!(
            first_line(line),
            "nvme nvme0: I/O 12 QID 1 timeout, completion polled"
        );
        assert_eq!(meaning(line), Some(FindingKind::LostInterrupt));
        let line = "blk_update_request: I/O error, dev nvme0n1, sector 5";
        assert_eq!(meaning(line), Some(FindingKind::DeviceError));
        assert_eq!(meaning("nvme nvme0: 2/0/0 default/read/poll queues"), None);
    }
}
