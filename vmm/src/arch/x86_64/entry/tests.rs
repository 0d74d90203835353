// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A CPU's state at its first instruction, if `/dev/kvm` exists.

use std::fs::File;
use std::sync::Arc;

use devices::power;
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::*;
use crate::arch::x86_64::cpuid;
use crate::arch::x86_64::page_tables::IdentityTables;
use crate::arch::x86_64::reset_vector;
use crate::kvm::vm::{Memslot, Vm};
use crate::memory::guest::GuestRam;
use crate::memory::layout::Conventional;
use crate::memory::plan::{Constraints, MemoryPlan, Region};

#[test]
fn the_descriptors_are_what_each_mode_needs() {
    let old = segment(CODE_32);
    assert_eq!((old.selector, old.type_, old.s), (0x8, 0xb, 1));
    assert_eq!((old.present, old.l, old.db, old.g), (1, 0, 1, 1));
    let code = segment(CODE);
    assert_eq!((code.selector, code.type_, code.s), (0x10, 0xb, 1));
    assert_eq!((code.present, code.l, code.db), (1, 1, 0));
    let data = segment(DATA);
    assert_eq!(
        (data.selector, data.type_, data.s, data.db),
        (0x18, 3, 1, 1)
    );
    let task = segment(TASK);
    assert_eq!((task.type_, task.s, task.present), (0xb, 0, 1));
}

/// Bytes of the guest's RAM, which begins at this address as well.
const RAM: u64 = 2 << 20;

/// What is at [`low::ZERO_PAGE`].
const TOLD: u32 = 0x336e_c578;

/// Runs `code` at [`RAM`] on a CPU set up for `entry` until it has written `count` times to an
/// I/O port, and returns that; `None` where there is no KVM.
fn written(code: &[u8], entry: &Entry, count: usize) -> Option<Vec<u32>> {
    let (vm, _ram, _slots) = machine(code)?;
    let mut vcpu = cpu(&vm);
    set_registers(&vcpu, entry).unwrap();
    let mut written = Vec::new();
    while written.len() < count {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(_, data)) => {
                written.push(u32::from_le_bytes(data.try_into().unwrap()));
            }
            other => panic!("{other:?} after {written:x?}"),
        }
    }
    Some(written)
}

/// A machine with `code` at [`RAM`]; `None` where there is no KVM.
fn machine(code: &[u8]) -> Option<(Arc<Vm>, GuestRam, Vec<Memslot>)> {
    let Ok(vm) = Vm::new() else {
        eprintln!("skipped: no /dev/kvm");
        return None;
    };
    let region = Region::of_file(RAM);
    let constraints = Constraints {
        taken: vec![("low memory", Gpa(0)..Gpa(low::SIZE))],
        address_bits: 32,
        slots: 2,
        kept: 0,
        dma: host::DmaMap::Identity,
    };
    let plan = MemoryPlan::new(vec![region], &Conventional, &constraints).unwrap();
    let file =
        File::from(rustix::fs::memfd_create("ram", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    file.set_len(RAM).unwrap();
    let ram = GuestRam::map(low::allocate().unwrap().as_ref(), Some(&file), &plan).unwrap();
    let regions = ram.regions().iter();
    let slots = regions
        .map(|region| vm.map(region.gpa(), region.mapping()).unwrap())
        .collect();

    let memory = ram.memory();
    let mut tables = IdentityTables::new(low::PAGE_TABLES);
    tables.map(&(Gpa(0)..Gpa(2 * RAM))).unwrap();
    let at = GuestAddress(tables.root().0);
    memory.write_slice(&tables.bytes(), at).unwrap();
    memory.write_slice(code, GuestAddress(RAM)).unwrap();
    memory
        .write_obj(TOLD, GuestAddress(low::ZERO_PAGE.0))
        .unwrap();
    write_gdt(memory).unwrap();
    Some((vm, ram, slots))
}

fn cpu(vm: &Vm) -> VcpuFd {
    let vcpu = vm.create_vcpu(0).unwrap();
    vcpu.set_cpuid2(&cpuid::for_vcpu(&vm.cpu().0, 0, 1).unwrap())
        .unwrap();
    set_reset_state(&vcpu).unwrap();
    vcpu
}

#[test]
fn a_jump_to_the_bios_restarts_the_machine() {
    let Some((vm, ram, _slots)) = machine(&[]) else {
        return;
    };
    reset_vector::write(ram.memory(), 0x600).unwrap();
    let mut vcpu = cpu(&vm);
    let mut special = vcpu.get_sregs().unwrap();
    special.cs.selector = 0xf000;
    special.cs.base = 0xf_0000;
    vcpu.set_sregs(&special).unwrap();
    let mut registers = vcpu.get_regs().unwrap();
    registers.rip = 0xfff0;
    vcpu.set_regs(&registers).unwrap();
    match vcpu.run() {
        Ok(VcpuExit::IoOut(port, data)) => {
            assert_eq!(port, 0x600 + power::RESET);
            assert_eq!(data, [power::RESET_VALUE]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn pvh_begins_in_32_bit_mode_without_paging() {
    let code = [
        0x8b, 0x03, // mov eax, [ebx]
        0xe7, 0x10, // out 0x10, eax
        0x0f, 0x20, 0xc0, // mov eax, cr0
        0xe7, 0x10, // out 0x10, eax
        0x0f, 0x20, 0xe0, // mov eax, cr4
        0xe7, 0x10, // out 0x10, eax
        0x8c, 0xc8, // mov eax, cs
        0xe7, 0x10, // out 0x10, eax
        0x31, 0xc0, // xor eax, eax
        0x48, // dec eax; in 64-bit mode a prefix
        0xe7, 0x10, // out 0x10, eax
    ];
    let Some(found) = written(&code, &Entry::Pvh { at: Gpa(RAM) }, 5) else {
        return;
    };
    assert_eq!(found[0], TOLD);
    // Protected, not paged; bit 4 is always set.
    assert_eq!(found[1] & 0x8000_0001, 1);
    assert_eq!(found[2], 0);
    assert_eq!(found[3] & 0xffff, 8);
    assert_eq!(found[4], u32::MAX);
}

#[test]
fn linux_begins_in_64_bit_mode() {
    let code = [
        0x8b, 0x06, // mov eax, [rsi]
        0xe7, 0x10, // out 0x10, eax
        0x0f, 0x20, 0xc0, // mov rax, cr0
        0xe7, 0x10, // out 0x10, eax
        0x8c, 0xc8, // mov eax, cs
        0xe7, 0x10, // out 0x10, eax
        0x31, 0xc0, // xor eax, eax
        0x48, 0xff, 0xc8, // dec rax
        0x48, 0xc1, 0xe8, 0x20, // shr rax, 32
        0xe7, 0x10, // out 0x10, eax
    ];
    let entry = Entry::Linux64 {
        at: Gpa(RAM),
        page_tables: low::PAGE_TABLES.start,
    };
    let Some(found) = written(&code, &entry, 4) else {
        return;
    };
    assert_eq!(found[0], TOLD);
    assert_eq!(found[1] & 0x8000_0001, 0x8000_0001);
    assert_eq!(found[2] & 0xffff, 0x10);
    assert_eq!(found[3], u32::MAX);
}
