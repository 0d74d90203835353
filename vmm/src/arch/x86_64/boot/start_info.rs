// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a kernel that is entered by PVH is given: `hvm_start_info`, the memory map, the initramfs
//! and the command line (Xen, public/arch-x86/hvm/start_info.h).

use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::params::BootInfo;
use crate::arch::params::ParamsError;
use crate::arch::x86_64::e820::{Entry, ZERO_PAGE_ENTRIES};
use crate::arch::x86_64::low;

/// The version with a memory map.
const VERSION: u32 = 1;
/// From the start of the structure, which has 56 bytes, to the list of modules.
const MODULES: u64 = 64;

/// Writes everything into low memory; of the memory map its first part only, since Linux copies as
/// many entries as it is given to a place for [`ZERO_PAGE_ENTRIES`]
/// (arch/x86/platform/pvh/enlighten.c, `init_pvh_bootparams`). The structure is at
/// [`low::ZERO_PAGE`] afterwards, as the zero page of a kernel with Linux's protocol would be.
///
/// # Errors
/// [`ParamsError`]
pub fn write(info: &BootInfo<'_>, memory: &GuestMemoryMmap) -> Result<(), ParamsError> {
    info.write_command_line(memory, usize::MAX)?;
    let left_out = info.memory_map.more.len();
    if left_out > 0 {
        log::warn!(
            "PVH passes {ZERO_PAGE_ENTRIES} pieces of memory to the guest's kernel; {left_out} \
             more are not passed"
        );
    }
    let entries: Vec<_> = info.memory_map.first.iter().map(raw).collect();
    let mut start = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        cmdline_paddr: low::COMMAND_LINE.start.0,
        rsdp_paddr: info.rsdp.0,
        memmap_paddr: low::SETUP_DATA.start.0,
        memmap_entries: u32::try_from(entries.len()).unwrap_or(u32::MAX),
        ..Default::default()
    };
    if let Some(range) = &info.initramfs {
        let at = low::ZERO_PAGE + MODULES;
        let module = hvm_modlist_entry {
            paddr: range.start.0,
            size: range.end - range.start,
            ..Default::default()
        };
        memory.write_obj(module, GuestAddress(at.0))?;
        (start.nr_modules, start.modlist_paddr) = (1, at.0);
    }
    memory.write_obj(start, GuestAddress(low::ZERO_PAGE.0))?;
    let mut at = low::SETUP_DATA.start;
    for entry in &entries {
        memory.write_obj(*entry, GuestAddress(at.0))?;
        at = at + size_of_val(entry) as u64;
    }
    Ok(())
}

/// The kinds have the same numbers as E820's.
fn raw(entry: &Entry) -> hvm_memmap_table_entry {
    hvm_memmap_table_entry {
        addr: entry.range.start.0,
        size: entry.range.end - entry.range.start,
        type_: entry.kind as u32,
        reserved: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use address::Gpa;

    use crate::arch::x86_64::e820::{Kind, MemoryMap};

    fn map(entries: u64) -> MemoryMap {
        let entry = |number: u64| Entry {
            range: Gpa(number << 21)..Gpa((number << 21) + 4096),
            kind: if number == 1 {
                Kind::Reserved
            } else {
                Kind::Ram
            },
        };
        MemoryMap {
            first: (0..entries.min(128)).map(entry).collect(),
            more: (128..entries).map(entry).collect(),
        }
    }

    fn written(entries: u64, initramfs: bool) -> Result<GuestMemoryMmap, ParamsError> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let info = BootInfo {
            memory_map: &map(entries),
            initramfs: initramfs.then_some(Gpa(0x800_0000)..Gpa(0x800_0123)),
            command_line: "quiet",
            rsdp: Gpa(0xe_0000),
        };
        write(&info, &memory).map(|()| memory)
    }

    #[test]
    fn everything_is_where_the_structure_points() {
        let memory = written(5, true).unwrap();
        let start: hvm_start_info = memory.read_obj(GuestAddress(low::ZERO_PAGE.0)).unwrap();
        assert_eq!((start.magic, start.version), (0x336e_c578, 1));
        assert_eq!((start.rsdp_paddr, start.memmap_entries), (0xe_0000, 5));
        let module: hvm_modlist_entry = memory.read_obj(GuestAddress(start.modlist_paddr)).unwrap();
        assert_eq!(
            (start.nr_modules, module.paddr, module.size),
            (1, 0x800_0000, 0x123)
        );
        let mut line = [0; 6];
        memory
            .read_slice(&mut line, GuestAddress(start.cmdline_paddr))
            .unwrap();
        assert_eq!(&line, b"quiet\0");
        for number in 0..5_u64 {
            let at = GuestAddress(start.memmap_paddr + number * 24);
            let entry: hvm_memmap_table_entry = memory.read_obj(at).unwrap();
            assert_eq!((entry.addr, entry.size), (number << 21, 4096));
            assert_eq!(entry.type_, if number == 1 { 2 } else { 1 });
        }
    }

    #[test]
    fn without_an_initramfs_there_is_no_module() {
        let memory = written(1, false).unwrap();
        let start: hvm_start_info = memory.read_obj(GuestAddress(low::ZERO_PAGE.0)).unwrap();
        assert_eq!((start.nr_modules, start.modlist_paddr), (0, 0));
    }

    #[test]
    fn no_more_entries_are_passed_than_linux_has_room_for() {
        for (entries, told) in [(127, 127), (128, 128), (129, 128), (300, 128)] {
            let memory = written(entries, false).unwrap();
            let start: hvm_start_info = memory.read_obj(GuestAddress(low::ZERO_PAGE.0)).unwrap();
            assert_eq!(start.memmap_entries, told);
            let behind = GuestAddress(start.memmap_paddr + u64::from(told) * 24);
            let next: hvm_memmap_table_entry = memory.read_obj(behind).unwrap();
            assert_eq!(next.type_, 0, "nothing behind the last one");
        }
    }
}
