// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::BTreeSet;
use std::io;

use devices::vfio_pci::{self, HostError};
use host::Id;

use super::*;

mod kernel_side;
mod samples;

/// Name, exit code, check, and whether there is a hint.
const MEANINGS: &str = include_str!("tests/meanings.txt");

#[test]
fn every_name_keeps_its_exit_code_and_its_check() {
    let mut found: Vec<String> = Vec::new();
    for error in samples::all() {
        let check = error.check_under(Limits::NONE).map_or("-", Id::name);
        let hint = error.hint_under(Limits::NONE).map_or("-", |_| "hint");
        let (id, code) = (error.id(), u8::from(error.exit_code()));
        let line = format!("{id} {code} {check} {hint}");
        if found.last() != Some(&line) {
            found.push(line);
        }
    }
    let found = found.join("\n") + "\n";
    assert_eq!(found, MEANINGS, "\n{found}");
    let sampled: BTreeSet<_> = samples::all().iter().map(Error::id).collect();
    assert_eq!(sampled, Error::ids().collect());
}

#[test]
fn names_are_unique() {
    let names: BTreeSet<_> = Error::ids().collect();
    assert_eq!(names.len(), Error::ids().count());
    assert!(names.contains("not-bound") && names.contains("bind-in-use"));
}

#[test]
fn a_cause_is_printed_once() {
    let error = BusError::from(vfio_pci::SetupError::Config {
        device: "01:00.0".into(),
        offset: 0x10,
        source: HostError(Box::new(Backend::Read {
            path: "/dev/x".into(),
            source: io::Error::from_raw_os_error(libc::EIO),
        })),
    });
    let text = Error::from(error).chain();
    assert_eq!(text.matches("Input/output error").count(), 1, "{text}");
}

#[test]
fn a_filter_and_a_limit_on_files_are_named_before_what_they_hide() {
    let opened = |number| {
        Error::from(Backend::OpenCdev {
            bdf: samples::bdf(),
            path: "/dev/vfio/devices/noiommu-vfio0".into(),
            source: samples::errno(number),
        })
    };
    let filtered = Limits::NONE.with_filter();
    for number in [libc::EPERM, libc::ENOSYS] {
        assert_eq!(opened(number).check_under(filtered), Some(Id::Seccomp));
    }
    let absent = opened(libc::ENOENT).check_under(filtered);
    assert_eq!(absent, Some(Id::DeviceCdev));
    for limits in [filtered, Limits::NONE] {
        let full = opened(libc::EMFILE).check_under(limits);
        assert_eq!(full, Some(Id::OpenFiles));
    }
}
