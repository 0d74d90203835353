// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a Linux kernel is given at its entry: the zero page, the command line and setup_data.

use std::ops::Range;

use address::Gpa;
use linux_loader::loader::bootparam::{SETUP_E820_EXT, boot_e820_entry, boot_params, setup_header};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::kernel_file::Protocol;
use crate::arch::x86_64::e820::{Entry, MemoryMap};
use crate::arch::x86_64::low;
use crate::halves;

/// `type_of_loader` of a boot loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;

/// What a kernel is given, whatever its protocol.
#[derive(Debug)]
pub struct BootInfo<'a> {
    /// The memory map.
    pub memory_map: &'a MemoryMap,
    /// Where the initramfs is, if there is one.
    pub initramfs: Option<Range<Gpa>>,
    /// The command line.
    pub command_line: &'a str,
    /// Where the ACPI root pointer is.
    pub rsdp: Gpa,
}

/// Why boot parameters cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ParamsError {
    /// The command line is too long.
    #[error(
        "The guest kernel's command line has {length} bytes, but that kernel accepts at most {most}"
    )]
    CommandLineTooLong {
        /// Its length in bytes.
        length: usize,
        /// What the kernel or its place in memory takes.
        most: usize,
    },
    /// The command line has a character in it that ends it.
    #[error("The guest kernel's command line contains a NUL character")]
    CommandLineNul,
    /// The kernel would hang with an option on the command line.
    #[error("The guest kernel cannot boot with {word} on its command line: {reason}")]
    Unbootable {
        /// The option as given.
        word: String,
        /// What it would miss.
        reason: &'static str,
    },
    /// The memory map does not fit its place.
    #[error(
        "The guest's memory map has {entries} entries, too many for the space in its low memory"
    )]
    MapTooLong {
        /// Entries in all.
        entries: usize,
    },
    /// Low memory did not take it.
    #[error("Cannot write boot parameters to guest memory")]
    Write(#[from] GuestMemoryError),
}

impl BootInfo<'_> {
    /// Writes everything into low memory, for a kernel with the setup header `header`. The zero
    /// page is at [`low::ZERO_PAGE`] afterwards.
    ///
    /// # Errors
    /// [`ParamsError`]
    pub fn write(
        &self,
        header: &setup_header,
        memory: &GuestMemoryMmap,
    ) -> Result<(), ParamsError> {
        let most = Protocol::Linux64(header).longest_command_line();
        self.write_command_line(memory, most)?;
        let mut params = boot_params {
            hdr: *header,
            acpi_rsdp_addr: self.rsdp.0,
            ..Default::default()
        };
        params.hdr.type_of_loader = LOADER_UNDEFINED;
        // Both are below 4 GiB by construction.
        (params.hdr.cmd_line_ptr, params.ext_cmd_line_ptr) = halves(low::COMMAND_LINE.start.0);
        if let Some(range) = &self.initramfs {
            (params.hdr.ramdisk_image, params.ext_ramdisk_image) = halves(range.start.0);
            (params.hdr.ramdisk_size, params.ext_ramdisk_size) = halves(range.end - range.start);
        }
        let first = &self.memory_map.first;
        let mut table = params.e820_table;
        for (slot, entry) in table.iter_mut().zip(first) {
            *slot = raw(entry);
        }
        params.e820_table = table;
        params.e820_entries = u8::try_from(first.len().min(table.len())).unwrap_or(u8::MAX);
        if !self.memory_map.more.is_empty() {
            params.hdr.setup_data = self.write_more(memory)?.0;
        }
        memory.write_obj(params, GuestAddress(low::ZERO_PAGE.0))?;
        Ok(())
    }

    /// Writes the command line, for a kernel that takes `most` bytes.
    pub(super) fn write_command_line(
        &self,
        memory: &GuestMemoryMmap,
        most: usize,
    ) -> Result<(), ParamsError> {
        check_command_line(self.command_line, most)?;
        let line = self.command_line.as_bytes();
        // The memory was clear: the end mark is there.
        Ok(memory.write_slice(line, GuestAddress(low::COMMAND_LINE.start.0))?)
    }

    /// Writes the entries that the zero page has no room for as a `struct setup_data`: a pointer
    /// to the next one, a type, a length, and the entries.
    fn write_more(&self, memory: &GuestMemoryMmap) -> Result<Gpa, ParamsError> {
        let entries = &self.memory_map.more;
        let data: Vec<u8> = entries
            .iter()
            .flat_map(|entry| {
                let boot_e820_entry { addr, size, r#type } = raw(entry);
                let mut bytes = addr.to_le_bytes().to_vec();
                bytes.extend(size.to_le_bytes());
                bytes.extend(r#type.to_le_bytes());
                bytes
            })
            .collect();
        let at = low::SETUP_DATA.start;
        let mut node = 0_u64.to_le_bytes().to_vec();
        node.extend(SETUP_E820_EXT.to_le_bytes());
        let too_long = ParamsError::MapTooLong {
            entries: self.memory_map.len(),
        };
        let Ok(length) = u32::try_from(data.len()) else {
            return Err(too_long);
        };
        node.extend(length.to_le_bytes());
        node.extend(data);
        if node.len() as u64 > low::SETUP_DATA.end - at {
            return Err(too_long);
        }
        memory.write_slice(&node, GuestAddress(at.0))?;
        Ok(at)
    }
}

/// Refuses a command line that is not for a kernel that takes `most` bytes, or for its place.
///
/// # Errors
/// [`ParamsError::CommandLineTooLong`], [`ParamsError::CommandLineNul`]
pub fn check_command_line(line: &str, most: usize) -> Result<(), ParamsError> {
    let room = low::COMMAND_LINE.end - low::COMMAND_LINE.start - 1;
    let most = most.min(usize::try_from(room).unwrap_or(0));
    if line.len() > most {
        return Err(ParamsError::CommandLineTooLong {
            length: line.len(),
            most,
        });
    }
    if line.contains('\0') {
        return Err(ParamsError::CommandLineNul);
    }
    Ok(())
}

fn raw(entry: &Entry) -> boot_e820_entry {
    boot_e820_entry {
        addr: entry.range.start.0,
        size: entry.range.end - entry.range.start,
        r#type: entry.kind as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::x86_64::e820::Kind;

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()
    }

    fn map(entries: u64) -> MemoryMap {
        let mut first: Vec<_> = (0..entries)
            .map(|i| Entry {
                range: Gpa(i << 21)..Gpa((i << 21) + 4096),
                kind: Kind::Ram,
            })
            .collect();
        let more = first.split_off(first.len().min(128));
        MemoryMap { first, more }
    }

    fn header() -> setup_header {
        setup_header {
            cmdline_size: 20,
            ..Default::default()
        }
    }

    #[test]
    fn addresses_above_4g_reach_the_kernel_in_two_halves() {
        let memory = memory();
        let initramfs = Gpa(0x1_2345_6000)..Gpa(0x1_2345_6010);
        BootInfo {
            memory_map: &map(200),
            initramfs: Some(initramfs),
            command_line: "quiet",
            rsdp: Gpa(0xe_0000),
        }
        .write(&header(), &memory)
        .unwrap();
        let params: boot_params = memory.read_obj(GuestAddress(low::ZERO_PAGE.0)).unwrap();
        assert_eq!({ params.hdr.ramdisk_image }, 0x2345_6000);
        assert_eq!({ params.ext_ramdisk_image }, 1);
        assert_eq!({ params.hdr.ramdisk_size }, 16);
        assert_eq!(params.e820_entries, 128);
        let node: [u32; 4] = memory
            .read_obj(GuestAddress(params.hdr.setup_data))
            .unwrap();
        assert_eq!(node, [0, 0, SETUP_E820_EXT, 72 * 20]);
        let last: u64 = memory
            .read_obj(GuestAddress(params.hdr.setup_data + 16 + 71 * 20))
            .unwrap();
        assert_eq!(last, 199 << 21);
        let mut line = [0; 6];
        memory
            .read_slice(&mut line, GuestAddress(u64::from(params.hdr.cmd_line_ptr)))
            .unwrap();
        assert_eq!(&line, b"quiet\0");
    }

    #[test]
    fn the_longest_map_that_a_kernel_keeps_fits() {
        let most = crate::arch::x86_64::e820::MAX_ENTRIES as u64;
        let info = |entries| {
            BootInfo {
                memory_map: &map(entries),
                initramfs: None,
                command_line: "",
                rsdp: Gpa(0xe_0000),
            }
            .write(&header(), &memory())
        };
        assert!(info(most).is_ok());
        assert!(matches!(info(6000), Err(ParamsError::MapTooLong { .. })));
    }

    #[test]
    fn a_command_line_is_checked() {
        let write = |command_line| {
            BootInfo {
                memory_map: &map(1),
                initramfs: None,
                command_line,
                rsdp: Gpa(0xe_0000),
            }
            .write(&header(), &memory())
        };
        assert!(write("twenty characters ok").is_ok());
        assert!(matches!(
            write("twenty-one characters"),
            Err(ParamsError::CommandLineTooLong {
                length: 21,
                most: 20
            })
        ));
        assert!(matches!(write("a\0b"), Err(ParamsError::CommandLineNul)));
    }
}
