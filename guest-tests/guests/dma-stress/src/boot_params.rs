// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Data from the loader: the memory map, the command line, the ACPI root pointer (Linux,
//! Documentation/arch/x86/zero-page.rst and arch/x86/include/uapi/asm/setup_data.h).

use alloc::string::String;
use alloc::vec::Vec;

use address::Gpa;

/// Bytes of the zero page.
pub const SIZE: usize = 4096;

const EXT_CMD_LINE_PTR: usize = 0x0c8;
const ACPI_RSDP_ADDR: usize = 0x070;
const E820_ENTRIES: usize = 0x1e8;
const CMD_LINE_PTR: usize = 0x228;
const SETUP_DATA: usize = 0x250;
const E820_TABLE: usize = 0x2d0;
/// Entries that fit the zero page.
const E820_MAX: usize = 128;
const E820_ENTRY: usize = 20;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

const SETUP_E820_EXT: u32 = 1;
/// Bytes of a node's header: next (8), type (4), length (4).
const SETUP_HEADER: usize = 16;
/// Nodes that are followed: more are a loop.
const MAX_NODES: usize = 64;
/// Longest command line, with its end.
const MAX_COMMAND_LINE: usize = 2048;

/// Boot parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootParams {
    /// RAM in the memory map, in its order.
    pub ram: Vec<core::ops::Range<Gpa>>,
    /// What the memory map calls reserved.
    pub reserved: Vec<core::ops::Range<Gpa>>,
    /// The command line; characters that are not ASCII are replaced.
    pub command_line: String,
    /// Where the ACPI root pointer is.
    pub rsdp: Gpa,
}

impl BootParams {
    /// Reads the zero page, and what it points at with `read`, which answers `false` outside of
    /// memory.
    #[must_use]
    pub fn parse(page: &[u8; SIZE], read: impl Fn(Gpa, &mut [u8]) -> bool) -> Self {
        let mut params = Self {
            rsdp: Gpa(long(page, ACPI_RSDP_ADDR)),
            ..Self::default()
        };
        let entries = usize::from(page[E820_ENTRIES]).min(E820_MAX);
        params.add_entries(&page[E820_TABLE..][..entries * E820_ENTRY]);

        let mut node = long(page, SETUP_DATA);
        for _ in 0..MAX_NODES {
            let mut header = [0; SETUP_HEADER];
            if node == 0 || !read(Gpa(node), &mut header) {
                break;
            }
            if word(&header, 8) == SETUP_E820_EXT {
                let mut table = alloc::vec![0; word(&header, 12) as usize];
                if read(Gpa(node + SETUP_HEADER as u64), &mut table) {
                    params.add_entries(&table);
                }
            }
            node = long(&header, 0);
        }

        let at =
            u64::from(word(page, CMD_LINE_PTR)) | u64::from(word(page, EXT_CMD_LINE_PTR)) << 32;
        params.command_line = (0..MAX_COMMAND_LINE as u64)
            .map_while(|offset| {
                let mut byte = [0];
                (at != 0 && read(Gpa(at + offset), &mut byte) && byte[0] != 0).then_some(byte[0])
            })
            .map(|byte| {
                if byte.is_ascii() {
                    char::from(byte)
                } else {
                    '?'
                }
            })
            .collect();
        params
    }

    fn add_entries(&mut self, table: &[u8]) {
        for entry in table.chunks_exact(E820_ENTRY) {
            let (start, len) = (Gpa(long(entry, 0)), long(entry, 8));
            let list = match word(entry, 16) {
                E820_RAM => &mut self.ram,
                E820_RESERVED => &mut self.reserved,
                _ => continue,
            };
            list.extend(start.span(len));
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(start: u64, len: u64, kind: u32) -> Vec<u8> {
        [
            &start.to_le_bytes()[..],
            &len.to_le_bytes(),
            &kind.to_le_bytes(),
        ]
        .concat()
    }

    fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
        page[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A zero page at 0x1000 with two entries, a setup_data list of two nodes, a command line.
    fn memory() -> Vec<u8> {
        let mut memory = alloc::vec![0; 0x4000];
        let page = &mut memory[0x1000..0x2000];
        put(page, ACPI_RSDP_ADDR, &0xe_0000_u64.to_le_bytes());
        page[E820_ENTRIES] = 2;
        put(page, E820_TABLE, &entry(0, 0xa_0000, 1));
        put(page, E820_TABLE + E820_ENTRY, &entry(0xe_0000, 0x2_0000, 2));
        put(page, SETUP_DATA, &0x2000_u64.to_le_bytes());
        put(page, CMD_LINE_PTR, &0x3000_u32.to_le_bytes());
        put(&mut memory, 0x2000, &0x2100_u64.to_le_bytes());
        put(&mut memory, 0x2008, &9_u32.to_le_bytes());
        put(&mut memory, 0x2108, &SETUP_E820_EXT.to_le_bytes());
        put(&mut memory, 0x210c, &40_u32.to_le_bytes());
        put(&mut memory, 0x2110, &entry(0x1_0000_0000, 0x20_0000, 1));
        put(&mut memory, 0x2124, &entry(u64::MAX - 5, 0x20_0000, 1));
        put(&mut memory, 0x3000, b"seed=5 \xff\0x");
        memory
    }

    fn parse(memory: &[u8]) -> BootParams {
        let page = memory[0x1000..0x2000].try_into().unwrap();
        BootParams::parse(&page, |at, into| {
            let from = usize::try_from(at.0).unwrap();
            match memory.get(from..).and_then(|rest| rest.get(..into.len())) {
                Some(bytes) => {
                    into.copy_from_slice(bytes);
                    true
                }
                None => false,
            }
        })
    }

    #[test]
    fn both_parts_of_the_memory_map_are_read() {
        let params = parse(&memory());
        assert_eq!(
            params.ram,
            [
                Gpa(0)..Gpa(0xa_0000),
                Gpa(0x1_0000_0000)..Gpa(0x1_0020_0000)
            ]
        );
        assert_eq!(params.reserved, [Gpa(0xe_0000)..Gpa(0x10_0000)]);
        assert_eq!(params.rsdp, Gpa(0xe_0000));
        assert_eq!(params.command_line, "seed=5 ?");
    }

    #[test]
    fn a_list_that_loops_ends() {
        let mut memory = memory();
        put(&mut memory, 0x2100, &0x2000_u64.to_le_bytes());
        assert_eq!(parse(&memory).ram.len(), 1 + MAX_NODES / 2);
    }

    #[test]
    fn pointers_out_of_memory_are_not_followed() {
        let mut memory = memory();
        put(&mut memory, 0x1000 + SETUP_DATA, &0x5000_u64.to_le_bytes());
        put(
            &mut memory,
            0x1000 + CMD_LINE_PTR,
            &0x5000_u32.to_le_bytes(),
        );
        let params = parse(&memory);
        assert_eq!((params.ram.len(), params.command_line.as_str()), (1, ""));
    }
}
