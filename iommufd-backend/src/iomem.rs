// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's map of physical addresses, `/proc/iomem`.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use address::Hpa;

use crate::error::Error;

/// What root types to leave a copy of the map where processes read it to which the kernel shows none.
pub const COPY_IOMEM: &str = "install -D -m 444 /proc/iomem /run/pinvisor/iomem";

/// One line of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 0 for the outermost resources, one more for each that contains it.
    pub depth: usize,
    /// Addresses, the end exclusive.
    pub range: Range<Hpa>,
    /// The kernel's name for it.
    pub name: String,
}

impl Entry {
    /// Whether it is what a root bridge of the host's decodes: addresses where BARs may be.
    #[must_use]
    pub fn is_root_window(&self) -> bool {
        self.depth == 0 && self.name.starts_with("PCI Bus ")
    }
}

/// The host's physical address map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoMem {
    entries: Vec<Entry>,
}

impl IoMem {
    /// Reads the map at `path`, normally `/proc/iomem`.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Parse`] for a malformed line; [`Error::AddressesHidden`] where
    /// the kernel shows zeros instead, as it does without CAP_SYS_ADMIN (kernel/resource.c
    /// r_show).
    pub fn read(path: &Path) -> Result<Self, Error> {
        // The kernel makes a page of it at once, and does not tell how long it is.
        let mut text = String::with_capacity(8192);
        File::open(path)
            .and_then(|mut file| file.read_to_string(&mut text))
            .map_err(|source| Error::Read {
                path: path.to_owned(),
                source,
            })?;
        let entries = text
            .lines()
            .map(|line| {
                entry(line).ok_or_else(|| Error::Parse {
                    path: path.to_owned(),
                    found: line.to_owned(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if entries.iter().all(|entry| entry.range.end.0 <= 1) {
            return Err(Error::AddressesHidden {
                path: path.to_owned(),
            });
        }
        Ok(Self { entries })
    }

    /// All lines in the kernel's order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What the host's root bridges decode: the address windows of BARs.
    pub fn bridge_windows(&self) -> impl Iterator<Item = Range<Hpa>> {
        self.entries
            .iter()
            .filter(|entry| entry.is_root_window())
            .map(|entry| entry.range.clone())
    }

    /// The memory that the host's kernel runs in.
    pub fn system_ram(&self) -> impl Iterator<Item = Range<Hpa>> {
        self.entries
            .iter()
            .filter(|entry| entry.depth == 0 && entry.name == "System RAM")
            .map(|entry| entry.range.clone())
    }

    /// Where the host has memory-mapped PCI config space of the first domain, if it does.
    #[must_use]
    pub fn ecam(&self) -> Option<Range<Hpa>> {
        self.entries
            .iter()
            .find(|entry| {
                entry.name.starts_with("PCI ECAM 0000")
                    || entry.name.starts_with("PCI MMCONFIG 0000")
            })
            .map(|entry| entry.range.clone())
    }
}

/// Reads `  START-END : NAME`, indented by two spaces a level, END inclusive.
fn entry(line: &str) -> Option<Entry> {
    let text = line.trim_start_matches(' ');
    let (range, name) = text.split_once(" : ")?;
    let (start, last) = range.split_once('-')?;
    let start = Hpa(u64::from_str_radix(start, 16).ok()?);
    // Nothing real ends at the last byte of the 64-bit space.
    let end = Hpa(u64::from_str_radix(last, 16).ok()?.saturating_add(1));
    (start < end).then(|| Entry {
        depth: (line.len() - text.len()) / 2,
        range: start..end,
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000a0000-000bffff : PCI Bus 0000:00
00100000-7ffdefff : System RAM
  01000000-01ffffff : Kernel code
80000000-afffffff : PCI Bus 0000:00
b0000000-bfffffff : PCI ECAM 0000 [bus 00-ff]
  b0000000-bfffffff : Reserved
c0000000-febfffff : PCI Bus 0000:00
  fe800000-fe9fffff : PCI Bus 0000:01
    fe800000-fe803fff : 0000:01:00.0
fec00000-fec003ff : IOAPIC 0
fee00000-fee00fff : Local APIC
";

    fn read(text: &str) -> Result<IoMem, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        IoMem::read(file.path())
    }

    #[test]
    fn windows_are_the_root_bridges_and_not_the_ports_below() {
        let map = read(MAP).unwrap();
        let windows: Vec<_> = map.bridge_windows().collect();
        assert_eq!(
            windows,
            [
                Hpa(0xa_0000)..Hpa(0xc_0000),
                Hpa(0x8000_0000)..Hpa(0xb000_0000),
                Hpa(0xc000_0000)..Hpa(0xfec0_0000)
            ]
        );
        assert_eq!(map.ecam(), Some(Hpa(0xb000_0000)..Hpa(0xc000_0000)));
        assert_eq!(map.system_ram().count(), 2);
        assert_eq!(map.entries()[10].depth, 2);
    }

    #[test]
    fn zeros_mean_no_permission() {
        assert!(matches!(
            read("00000000-00000000 : Reserved\n00000000-00000000 : System RAM\n"),
            Err(Error::AddressesHidden { .. })
        ));
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic(line in ".*") {
            let _ = entry(&line);
        }
    }

    #[test]
    fn a_malformed_line_is_named() {
        for line in ["nonsense", "00-zz : x", "10-0 : x", "1-2"] {
            let Err(Error::Parse { found, .. }) = read(line) else {
                panic!("{line} was taken");
            };
            assert_eq!(found, line);
        }
    }
}
