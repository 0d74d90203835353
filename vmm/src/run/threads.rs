// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Threads that last as long as the guest.

use std::thread::Builder;

/// Bytes of a transparent hugepage, where pages have 4 KiB.
const HUGEPAGE: usize = 2 << 20;
/// Bytes of a stack. With `always` in `/sys/kernel/mm/transparent_hugepage/enabled`, the first access to memory in which
/// there is room for a hugepage allocates and clears one, and in a stack of 2 MiB there is room if it ends at a multiple of
/// that. The stack of the first vCPU does, right below guest memory. Stacks that are mapped with `MAP_STACK` get no
/// hugepages (Linux 6.7, include/linux/mman.h, `calc_vm_flag_bits`), but musl's are not (src/thread/pthread_create.c).
const STACK: usize = 1 << 20;
const _: () = assert!(STACK < HUGEPAGE);

/// A thread of this name, to be started.
pub(crate) fn named(name: String) -> Builder {
    Builder::new().name(name).stack_size(STACK)
}
