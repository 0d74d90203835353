// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! KVM's own statistics of another process's VM and vCPUs (Linux Documentation/virt/kvm/api.rst,
//! `KVM_GET_STATS_FD`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use crate::error::{AtPath, Error, Result};

/// `_IO(KVMIO, 0xce)`.
const GET_STATS_FD: libc::Ioctl = 0xaece;

/// Bytes of `struct kvm_stats_header`, and of `struct kvm_stats_desc` before the name.
const HEADER: usize = 24;
const DESCRIPTION: usize = 16;
/// No file of statistics is larger.
const MOST: usize = 1 << 20;

/// Values by name; those of vCPUs are sums. Of histograms only the first bucket is taken.
pub type Stats = BTreeMap<String, u64>;

/// The statistics of the VM of process `id`, and of its vCPUs.
///
/// # Errors
/// [`Error::File`]; [`Error::Malformed`] if a file of statistics contradicts itself.
pub fn read(id: u32) -> Result<Stats> {
    let folder = format!("/proc/{id}/fd");
    let failed = |source: rustix::io::Errno| Error::File {
        action: "take descriptors of",
        path: folder.clone().into(),
        source: source.into(),
    };
    let process = i32::try_from(id).ok().and_then(Pid::from_raw);
    let process = process.ok_or(rustix::io::Errno::SRCH).map_err(failed)?;
    let process = rustix::process::pidfd_open(process, PidfdFlags::empty()).map_err(failed)?;
    let mut stats = Stats::new();
    for entry in fs::read_dir(&folder).at("read", &folder)?.flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        let number = entry.file_name().to_string_lossy().parse();
        let (true, Ok(number)) = (target.starts_with("anon_inode:kvm-v"), number) else {
            continue;
        };
        let fd = rustix::process::pidfd_getfd(&process, number, PidfdGetfdFlags::empty());
        let Some(file) = stats_file(&fd.map_err(failed)?) else {
            continue;
        };
        let mut bytes = vec![0; MOST];
        let length = file.read_at(&mut bytes, 0).at("read", &folder)?;
        let values = parse(&bytes[..length]).ok_or_else(|| Error::Malformed {
            path: folder.clone().into(),
            reason: format!("statistics of {target}"),
        })?;
        for (name, value) in values {
            *stats.entry(name).or_default() += value;
        }
    }
    Ok(stats)
}

/// The file of statistics of a VM or vCPU; `None` if `fd` is neither.
fn stats_file(fd: &OwnedFd) -> Option<File> {
    // SAFETY: the request takes no argument and returns a new descriptor.
    let stats = unsafe { libc::ioctl(fd.as_raw_fd(), GET_STATS_FD) };
    // SAFETY: the kernel made it for this caller; nothing else owns it.
    (stats >= 0).then(|| unsafe { File::from_raw_fd(stats) })
}

/// Name and value of each statistic in a file of them; `None` if it contradicts itself.
fn parse(bytes: &[u8]) -> Option<Vec<(String, u64)>> {
    let word = |at: usize| -> Option<usize> {
        let bytes = bytes.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_ne_bytes(*bytes)).ok()
    };
    let (name_size, count) = (word(4)?, word(8)?);
    let (descriptions, data) = (word(16)?, word(20)?);
    let mut values = Vec::new();
    for number in 0..count {
        let at = descriptions + number * (DESCRIPTION + name_size);
        let name = bytes.get(at + DESCRIPTION..at + DESCRIPTION + name_size)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let value = bytes.get(data + word(at + 8)?..)?.first_chunk()?;
        values.push((
            String::from_utf8_lossy(name).into_owned(),
            u64::from_ne_bytes(*value),
        ));
    }
    (bytes.len() >= HEADER).then_some(values)
}

/// What each statistic has grown by since `before`, without those that have not.
#[must_use]
pub fn growth(before: &Stats, after: &Stats) -> Stats {
    let grown = after.iter().filter_map(|(name, value)| {
        let by = value.checked_sub(before.get(name).copied().unwrap_or(0))?;
        (by > 0).then(|| (name.clone(), by))
    });
    grown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_descriptions() {
        let mut bytes = Vec::new();
        // Flags, size of names, count, and where id, descriptions and data are.
        for word in [0_u32, 16, 2, 24, 32, 32 + 2 * 32] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.resize(32, 0);
        for (name, offset) in [(&b"exits"[..], 8_u32), (b"pages_2m", 0)] {
            bytes.extend([0; 8]);
            bytes.extend(offset.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(name);
            bytes.resize(bytes.len().next_multiple_of(16), 0);
        }
        bytes.extend(128_u64.to_ne_bytes());
        bytes.extend(7_u64.to_ne_bytes());
        let values = parse(&bytes).unwrap();
        let expected = [("exits".to_owned(), 7), ("pages_2m".to_owned(), 128)];
        assert_eq!(values, expected);
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), None, "{length}");
        }
        let after = Stats::from(expected);
        let before = Stats::from([("exits".to_owned(), 5), ("pages_2m".to_owned(), 128)]);
        assert_eq!(
            growth(&before, &after),
            Stats::from([("exits".to_owned(), 2)])
        );
    }
}
