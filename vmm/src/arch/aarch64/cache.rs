// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What this process wrote into guest memory, out of the CPU's caches: to the point of coherency, where a device finds it
//! whose DMA bypasses them, and the guest's CPUs while their caches are off (Arm Architecture Reference Manual, D7.5.9,
//! DC CVAC; KVM does the same for pages that CPUs of the guest touch first, arch/arm64/kvm/mmu.c).

use std::ops::Range;

use address::Hva;

/// What cleans caches.
trait Cleaner {
    /// Bytes of the smallest line, a power of two.
    fn line(&self) -> u64;

    /// Writes the line at `at` back.
    fn clean(&mut self, at: Hva);

    /// Waits until all have been written.
    fn finish(&mut self);
}

/// Has `cleaner` clean all lines of `memory`.
fn clean_all(memory: impl IntoIterator<Item = Range<Hva>>, cleaner: &mut impl Cleaner) {
    let line = cleaner.line();
    for range in memory {
        let mut at = range.start.align_down(line);
        while at < range.end {
            cleaner.clean(at);
            let Some(next) = at.checked_add(line) else {
                break;
            };
            at = next;
        }
    }
    cleaner.finish();
}

#[cfg(target_arch = "aarch64")]
pub use cpu::clean;

#[cfg(target_arch = "aarch64")]
mod cpu {
    use std::arch::asm;

    use address::Hva;
    use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

    use super::{Cleaner, clean_all};

    /// Where the smallest line of a data cache is in CTR_EL0, as the binary logarithm of its words of 4 bytes.
    const LINE_SHIFT: u64 = 16;

    /// Cleans what this process wrote into `memory`.
    pub fn clean(memory: &GuestMemoryMmap) {
        let ranges = memory.iter().map(|region| {
            let start = Hva(region.as_ptr() as u64);
            start..start + region.len()
        });
        clean_all(ranges, &mut Cpu);
    }

    /// The CPU, from user space: Linux allows both instructions there (SCTLR_EL1.UCT and UCI).
    struct Cpu;

    impl Cleaner for Cpu {
        fn line(&self) -> u64 {
            let value: u64;
            // SAFETY: the instruction reads a register that user space may read, and changes nothing else.
            unsafe { asm!("mrs {}, ctr_el0", out(reg) value, options(nomem, nostack, pure)) };
            4 << (value >> LINE_SHIFT & 0xf)
        }

        fn clean(&mut self, at: Hva) {
            // SAFETY: cleaning changes no data, at whatever address; `clean_all` names lines of mapped guest memory only,
            // so that it does not fault.
            unsafe { asm!("dc cvac, {}", in(reg) at.0, options(nostack, preserves_flags)) };
        }

        fn finish(&mut self) {
            // SAFETY: a barrier changes no data.
            unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was asked for.
    #[derive(Default)]
    struct Record {
        cleaned: Vec<u64>,
        finished: usize,
    }

    impl Cleaner for Record {
        fn line(&self) -> u64 {
            64
        }

        fn clean(&mut self, at: Hva) {
            assert_eq!(self.finished, 0);
            self.cleaned.push(at.0);
        }

        fn finish(&mut self) {
            self.finished += 1;
        }
    }

    #[test]
    fn every_line_of_memory_is_cleaned_once_and_then_waited_for() {
        let mut record = Record::default();
        let memory = [(0x1000, 0x1100), (0x3020, 0x3041), (0x5000, 0x5000)];
        clean_all(memory.map(|(start, end)| Hva(start)..Hva(end)), &mut record);
        assert_eq!(
            record.cleaned,
            [0x1000, 0x1040, 0x1080, 0x10c0, 0x3000, 0x3040]
        );
        assert_eq!(record.finished, 1);
    }

    #[test]
    fn the_end_of_the_address_space_ends_it() {
        let mut record = Record::default();
        let range = Hva(u64::MAX - 0x7f)..Hva(u64::MAX);
        clean_all([range], &mut record);
        assert_eq!(record.cleaned, [u64::MAX - 0x7f, u64::MAX - 0x3f]);
    }
}
