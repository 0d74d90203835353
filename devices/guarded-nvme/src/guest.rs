//! What a guest is to its controller: memory, and where that memory is in the host.

use address::{Gpa, Hpa};

/// What a device does to a page, seen from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// The device reads memory: a transfer to the device.
    Read,
    /// The device writes memory: a transfer to the host.
    Write,
}

/// Where guest memory is in the host, page by page: the AMDv1 table of a run, or a model of it.
pub trait Translate {
    /// The host address of the page of 4 KiB at `gpa`, a multiple of that. `None` unless the whole page is the guest's RAM
    /// and may be accessed so. Memory of devices is not RAM (sheet, section 8).
    fn page(&self, gpa: Gpa, access: Access) -> Option<Hpa>;
}

/// Guest memory as the monitor accesses it.
///
/// The guest changes its memory while this runs. What is read is copied: an implementation reads each byte once, with
/// volatile loads, and hands out no reference (sheet, section 4).
pub trait GuestMemory {
    /// Copies the `data.len()` bytes at `gpa`. `false` unless all of them are RAM.
    #[must_use]
    fn read(&self, gpa: Gpa, data: &mut [u8]) -> bool;

    /// Copies `data` to `gpa`. `false` unless all of that is RAM which the guest's devices may write.
    #[must_use]
    fn write(&self, gpa: Gpa, data: &[u8]) -> bool;

    /// Reads the 8 bytes at `gpa`, a multiple of 8, in one load, little-endian. `None` unless they are RAM.
    fn load(&self, gpa: Gpa) -> Option<u64>;

    /// Stores 8 bytes at `gpa`, a multiple of 8, in one store that no earlier write passes (release), little-endian.
    /// `false` unless they are RAM which the guest's devices may write.
    #[must_use]
    fn publish(&self, gpa: Gpa, value: u64) -> bool;
}

/// Both views of one guest's memory.
pub trait Guest: Translate + GuestMemory {}

impl<T: Translate + GuestMemory> Guest for T {}

impl<T: Translate + ?Sized> Translate for &T {
    fn page(&self, gpa: Gpa, access: Access) -> Option<Hpa> {
        (**self).page(gpa, access)
    }
}

impl<T: GuestMemory + ?Sized> GuestMemory for &T {
    fn read(&self, gpa: Gpa, data: &mut [u8]) -> bool {
        (**self).read(gpa, data)
    }

    fn write(&self, gpa: Gpa, data: &[u8]) -> bool {
        (**self).write(gpa, data)
    }

    fn load(&self, gpa: Gpa) -> Option<u64> {
        (**self).load(gpa)
    }

    fn publish(&self, gpa: Gpa, value: u64) -> bool {
        (**self).publish(gpa, value)
    }
}
