// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which lengths and places transfers are tried with.

/// Smallest page.
const PAGE: u64 = 4096;
/// Large page.
const LARGE_PAGE: u64 = 2 << 20;

/// One transfer by chance of so many may be of any length that the engine can do.
const LONG_EVERY: u64 = 8;

/// What an engine can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Lengths are multiples of this.
    pub granule: u64,
    /// Addresses are multiples of this, a power of two.
    pub align: u64,
    /// Longest transfer in bytes, a multiple of `granule`.
    pub most: u64,
    /// Most transfers by chance are no longer than this; [`most`](Self::most) if all lengths are
    /// as likely.
    pub usual: u64,
    /// Bytes on the device's side.
    pub room: u64,
    /// Transfers that may be under way at once.
    pub depth: usize,
    /// Whether the device's side may be written.
    pub writable: bool,
}

/// A class of transfers; each is a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Lengths from the shortest to the longest.
    Lengths,
    /// Every offset in a page.
    Alignments,
    /// Across the border of two pages.
    CrossPage,
    /// Across the border of two large pages.
    CrossLargePage,
    /// From the first byte of an extent on.
    ExtentStart,
    /// Up to the last byte of an extent.
    ExtentEnd,
    /// Across discontinuities of guest memory in the host's.
    CrossSeam,
    /// Long and short ones, anywhere.
    Mixed,
}

/// All of them, in the order in which they are tried. The last one continues until enough is moved.
pub const CLASSES: [Class; 8] = [
    Class::Lengths,
    Class::Alignments,
    Class::CrossPage,
    Class::CrossLargePage,
    Class::ExtentStart,
    Class::ExtentEnd,
    Class::CrossSeam,
    Class::Mixed,
];

/// Where a buffer is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Anywhere, but at this offset in a page.
    At(u64),
    /// With this many bytes of it before a multiple of the border.
    Across {
        /// What addresses of borders are multiples of.
        border: u64,
        /// Bytes before it.
        before: u64,
    },
    /// With this many bytes of it before a place where the next byte is elsewhere in the host.
    AcrossSeam {
        /// Bytes before it.
        before: u64,
    },
    /// At the start of an extent.
    Start {
        /// What its address is a multiple of, a power of two.
        align: u64,
    },
    /// At the end of an extent.
    End {
        /// What its address is a multiple of, a power of two.
        align: u64,
    },
}

/// A buffer to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes.
    pub len: u64,
    /// Where.
    pub place: Place,
}

impl Class {
    /// The class in words, for a test's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lengths => "every length",
            Self::Alignments => "every alignment",
            Self::CrossPage => "across 4 KiB borders",
            Self::CrossLargePage => "across 2 MiB borders",
            Self::ExtentStart => "at the start of extents",
            Self::ExtentEnd => "at the end of extents",
            Self::CrossSeam => "across physical discontinuities",
            Self::Mixed => "long and short, anywhere",
        }
    }

    /// The `number`th shape of the class: first those where errors are likely, then by chance.
    #[must_use]
    pub fn shape(self, number: u64, limits: &Limits, random: &mut fastrand::Rng) -> Shape {
        let align = limits.align;
        match self {
            Self::Lengths => Shape {
                len: limits
                    .nth_len(number)
                    .unwrap_or_else(|| limits.any_len(random)),
                place: limits.any_offset(random),
            },
            Self::Alignments => {
                // The first and last bytes of a page in turn, then the rest.
                let step = number / 2 * align % PAGE;
                let at = if number.is_multiple_of(2) {
                    step
                } else {
                    PAGE - align - step
                };
                Shape {
                    len: limits.any_len(random),
                    place: Place::At(at),
                }
            }
            Self::CrossPage | Self::CrossLargePage => {
                let border = match self {
                    Self::CrossPage => PAGE,
                    _ => LARGE_PAGE,
                };
                let (len, before) = limits.across(border, number, random);
                Shape {
                    len,
                    place: Place::Across { border, before },
                }
            }
            Self::CrossSeam => {
                let (len, before) = limits.across(PAGE, number, random);
                Shape {
                    len,
                    place: Place::AcrossSeam { before },
                }
            }
            Self::ExtentStart => Shape {
                len: limits.any_len(random),
                place: Place::Start { align },
            },
            Self::ExtentEnd => Shape {
                len: limits.any_len(random),
                place: Place::End { align },
            },
            Self::Mixed => Shape {
                len: match number % LONG_EVERY {
                    0 => limits.most,
                    _ => limits.any_len(random),
                },
                place: limits.any_offset(random),
            },
        }
    }
}

impl Limits {
    /// The length nearest to `len` that the engine can do.
    fn len(&self, len: u64) -> u64 {
        (len.min(self.most) / self.granule * self.granule).max(self.granule)
    }

    /// `offset` rounded down as addresses are.
    fn aligned(&self, offset: u64) -> u64 {
        offset & !(self.align - 1)
    }

    /// A length by chance: as many short ones as long ones, up to the usual one most of the time.
    fn any_len(&self, random: &mut fastrand::Rng) -> u64 {
        let most = match random.u64(..LONG_EVERY) {
            0 => self.most,
            _ => self.usual.clamp(1, self.most),
        };
        let bits = random.u32(0..=most.ilog2());
        self.len(random.u64(1_u64 << bits..2 << bits))
    }

    /// Any offset in a page.
    fn any_offset(&self, random: &mut fastrand::Rng) -> Place {
        Place::At(self.aligned(random.u64(..PAGE)))
    }

    /// The length of the `number`th buffer that crosses a multiple of `border`, and how many bytes
    /// of it are before that.
    fn across(&self, border: u64, number: u64, random: &mut fastrand::Rng) -> (u64, u64) {
        let len = self.len(self.any_len(random).max(2 * self.granule.max(self.align)));
        let before = match number % 3 {
            0 => self.align,
            1 => len.saturating_sub(self.align),
            _ => random.u64(1..len.max(2)),
        };
        let before = self.aligned(before.min(border / 2)).max(self.align);
        (len, before)
    }

    /// Lengths one after the other: around powers of two, up to the longest; `None` after that.
    fn nth_len(&self, number: u64) -> Option<u64> {
        let power = self.granule.checked_shl(u32::try_from(number / 3).ok()?)?;
        let len = match number % 3 {
            0 => power.saturating_sub(self.granule),
            1 => power,
            _ => power + self.granule,
        };
        (power <= self.most).then(|| self.len(len))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const EDU: Limits = Limits {
        granule: 1,
        align: 1,
        most: 4096,
        usual: 4096,
        room: 4096,
        depth: 1,
        writable: true,
    };
    const NVME: Limits = Limits {
        granule: 512,
        align: 4,
        most: 128 << 10,
        usual: 8 << 10,
        room: 1 << 30,
        depth: 16,
        writable: true,
    };

    fn shapes(class: Class, limits: &Limits) -> Vec<Shape> {
        let mut random = fastrand::Rng::with_seed(3);
        (0..3000)
            .map(|number| class.shape(number, limits, &mut random))
            .collect()
    }

    #[test]
    fn shapes_keep_to_the_limits() {
        for limits in [EDU, NVME] {
            for class in CLASSES {
                for shape in shapes(class, &limits) {
                    assert!(
                        (1..=limits.most).contains(&shape.len),
                        "{class:?} {shape:?}"
                    );
                    assert_eq!(shape.len % limits.granule, 0, "{class:?} {shape:?}");
                    let offset = match shape.place {
                        Place::At(offset) => offset,
                        Place::Across { before, border } => {
                            assert!((1..shape.len).contains(&before), "{class:?} {shape:?}");
                            assert!(before < border);
                            before
                        }
                        Place::AcrossSeam { before } => {
                            assert!((1..shape.len).contains(&before), "{class:?} {shape:?}");
                            before
                        }
                        Place::Start { align } | Place::End { align } => align,
                    };
                    assert_eq!(offset % limits.align, 0, "{class:?} {shape:?}");
                }
            }
        }
    }

    #[test]
    fn lengths_go_from_the_shortest_to_the_longest() {
        for limits in [EDU, NVME] {
            let lens: Vec<_> = shapes(Class::Lengths, &limits)
                .iter()
                .map(|shape| shape.len)
                .collect();
            for len in [
                1,
                2,
                3,
                limits.most / limits.granule - 1,
                limits.most / limits.granule,
            ] {
                assert!(lens.contains(&(len * limits.granule)), "{len}");
            }
        }
    }

    #[test]
    fn alignments_are_all_there() {
        let mut offsets: Vec<_> = shapes(Class::Alignments, &NVME)
            .iter()
            .map(|shape| match shape.place {
                Place::At(offset) => offset,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(offsets[..4], [0, 4092, 4, 4088]);
        offsets.sort_unstable();
        offsets.dedup();
        assert_eq!(offsets.len(), 1024);
    }
}
