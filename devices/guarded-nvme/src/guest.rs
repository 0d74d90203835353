// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

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
    /// and may be accessed so. Memory of devices is not RAM.
    fn page(&self, gpa: Gpa, access: Access) -> Option<Hpa>;
}

/// Guest memory as the monitor accesses it.
///
/// The guest changes its memory while this runs. What is read is copied, in pieces of any size, and only the copy is used: an
/// implementation hands out no reference.
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

/// Which of a queue pair's two doorbells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Submission Queue Tail.
    Submission,
    /// Completion Queue Head.
    Completion,
}

/// A doorbell of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Doorbell {
    /// The queue's identifier; 0 is the admin queue's.
    pub queue: u16,
    /// Which of its two.
    pub side: Side,
}

impl Doorbell {
    /// The tail of submission queue `queue`.
    #[must_use]
    pub const fn tail(queue: u16) -> Self {
        let side = Side::Submission;
        Self { queue, side }
    }

    /// The head of completion queue `queue`.
    #[must_use]
    pub const fn head(queue: u16) -> Self {
        let side = Side::Completion;
        Self { queue, side }
    }

    /// Its number among the doorbells (Base 3.1.4.x: SQyTDBL is 2y, CQyHDBL is 2y + 1).
    #[must_use]
    pub const fn index(self) -> u32 {
        2 * self.queue as u32
            + match self.side {
                Side::Submission => 0,
                Side::Completion => 1,
            }
    }
}

/// The guest's doorbells: the value last stored in each. They are pages of RAM that the guest writes without an exit, or
/// words that a trapped store sets; the crate only looks at values, so both are the same to it.
pub trait Doorbells {
    /// The last value, read once. What the guest wrote to its memory before the store is visible after (acquire).
    fn value(&self, doorbell: Doorbell) -> u32;

    /// Sets the value to 0: a queue begins there.
    fn clear(&self, doorbell: Doorbell);
}

/// The guest's interrupts.
pub trait Interrupts {
    /// Signals a vector of the guest's MSI-X table. What was written to its memory before is visible to it after.
    fn raise(&self, vector: u16);
}

/// All that a controller needs of its guest.
pub trait Machine: Guest + Doorbells + Interrupts {}

impl<T: Guest + Doorbells + Interrupts> Machine for T {}

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

impl<T: Doorbells + ?Sized> Doorbells for &T {
    fn value(&self, doorbell: Doorbell) -> u32 {
        (**self).value(doorbell)
    }

    fn clear(&self, doorbell: Doorbell) {
        (**self).clear(doorbell);
    }
}

impl<T: Interrupts + ?Sized> Interrupts for &T {
    fn raise(&self, vector: u16) {
        (**self).raise(vector);
    }
}
