// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Newtypes for the addresses that a passthrough monitor handles: five kinds of memory address,
//! and the names of PCI functions.
//!
//! Mixing a guest-physical with a host-physical address is the error that lets a device write over
//! the host, so the kinds do not convert into one another: the only ways across are the
//! constructors (`Gpa(…)`) and the public field, which are visible in a review, and the two
//! functions between [`Hpa`] and [`BusAddr`], whose names state their assumption.
//!
//! ```
//! use address::{Bdf, Gpa, Hpa};
//!
//! // In an identity layout the two have the same number, and the conversion is in plain sight.
//! let gpa = Gpa(0x2_4020_1234);
//! let hpa = Hpa(gpa.0);
//! assert_eq!(hpa.align_down(0x20_0000), Hpa(0x2_4020_0000));
//! assert_eq!(hpa - Hpa(0x2_4020_0000), 0x1234);
//!
//! let disk: Bdf = "01:00.0".parse()?;
//! assert_eq!(disk.to_string(), "0000:01:00.0");
//! # Ok::<(), address::ParseBdfError>(())
//! ```
//!
//! This does not compile:
//!
//! ```compile_fail,E0308
//! use address::{Gpa, Hpa};
//!
//! let wrong: Hpa = Gpa(0x2_4020_0000);
//! ```

#![no_std]
#![forbid(unsafe_code)]

mod bdf;
pub mod units;

pub use bdf::{Bdf, ParseBdfError};

use core::fmt;
use core::ops::{Add, Range, Sub};

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// `self + bytes`, or `None` past the end of the 64-bit space.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// `self` rounded down to a multiple of `align`, which is a power of two.
            #[must_use]
            pub const fn align_down(self, align: u64) -> Self {
                debug_assert!(align.is_power_of_two());
                Self(self.0 & !(align - 1))
            }

            /// `self` rounded up to a multiple of `align`, which is a power of two; `None` past
            /// the end of the 64-bit space.
            #[must_use]
            pub const fn align_up(self, align: u64) -> Option<Self> {
                match self.checked_add(align - 1) {
                    Some(sum) => Some(sum.align_down(align)),
                    None => None,
                }
            }

            /// Whether `self` is a multiple of `align`, which is a power of two.
            #[must_use]
            pub const fn is_aligned(self, align: u64) -> bool {
                debug_assert!(align.is_power_of_two());
                self.0 & (align - 1) == 0
            }

            /// The range of `len` bytes from here, or `None` past the end of the 64-bit space.
            #[must_use]
            pub fn span(self, len: u64) -> Option<Range<Self>> {
                Some(self..self.checked_add(len)?)
            }
        }

        impl Add<u64> for $name {
            type Output = Self;
            fn add(self, bytes: u64) -> Self {
                Self(self.0 + bytes)
            }
        }

        impl Sub<u64> for $name {
            type Output = Self;
            fn sub(self, bytes: u64) -> Self {
                Self(self.0 - bytes)
            }
        }

        /// Distance in bytes.
        impl Sub for $name {
            type Output = u64;
            fn sub(self, other: Self) -> u64 {
                self.0 - other.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// Guest-physical address: what the guest's page tables and drivers call physical.
    Gpa
}
address! {
    /// Host-physical address: what the memory bus answers to.
    Hpa
}
address! {
    /// Address as a device puts it on its bus: without an IOMMU, what the device must be given, and what its
    /// BARs hold.
    ///
    /// The host bridge makes a CPU's address of it: `BusAddr = Hpa + offset`, where the offset is the
    /// bridge's, modulo 2^64. On x86 no bridge has one. Elsewhere one may, and not the same for memory as for BARs.
    BusAddr
}
address! {
    /// I/O virtual address: key of a mapping in an IOAS. Only an IOMMU makes it an address that
    /// a device can use.
    Iova
}
address! {
    /// Host virtual address in this process.
    Hva
}

impl BusAddr {
    /// The address on a bus whose host bridge adds `offset`, modulo 2^64.
    #[must_use]
    pub const fn with_offset(hpa: Hpa, offset: u64) -> Self {
        Self(hpa.0.wrapping_add(offset))
    }

    /// The address on a bus whose host bridge adds nothing. This holds on x86 without an IOMMU, where it is
    /// checked for each device by its BARs; nothing else may take it for granted.
    #[must_use]
    pub const fn identity(hpa: Hpa) -> Self {
        Self::with_offset(hpa, 0)
    }

    /// What [`identity`](Self::identity) makes `self` of.
    #[must_use]
    pub const fn identity_hpa(self) -> Hpa {
        Hpa(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stops_at_the_end_of_the_space() {
        assert_eq!(Gpa(u64::MAX).checked_add(1), None);
        assert_eq!(Gpa(u64::MAX).align_up(4096), None);
        assert_eq!(Hpa(u64::MAX - 4095).span(4096), None);
        assert_eq!(Hpa(0x1000).span(0x1000), Some(Hpa(0x1000)..Hpa(0x2000)));
    }

    #[test]
    fn a_bus_address_is_a_physical_one_with_an_offset() {
        let hpa = Hpa(0x1000);
        assert_eq!(
            BusAddr::with_offset(hpa, 0x10_0000_0000),
            BusAddr(0x10_0000_1000)
        );
        assert_eq!(
            BusAddr::with_offset(hpa, 0_u64.wrapping_sub(0x800)),
            BusAddr(0x800)
        );
        assert_eq!(BusAddr::identity(hpa), BusAddr(0x1000));
        assert_eq!(BusAddr::identity(hpa).identity_hpa(), hpa);
    }

    #[test]
    fn alignment_rounds_both_ways() {
        assert_eq!(Iova(0x1fff).align_down(0x1000), Iova(0x1000));
        assert_eq!(Iova(0x1001).align_up(0x1000), Some(Iova(0x2000)));
        assert_eq!(Iova(0x1000).align_up(0x1000), Some(Iova(0x1000)));
        assert!(Hva(0x20_0000).is_aligned(0x20_0000));
        assert!(!Hva(0x20_1000).is_aligned(0x20_0000));
    }
}
