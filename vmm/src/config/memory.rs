// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The size of a guest's memory, and its pages.

use std::str::FromStr;

use iommufd_backend::host_page_size;
use iommufd_backend::hugepages::HugepageSize;
use serde::{Deserialize, Deserializer};
use strum::{EnumIter, IntoStaticStr};

use super::text::{self, Compact};
use super::{ConfigError, MemoryLayout, validate};

/// Guest RAM: `SIZE[,hugepage_size=2M|1G][,spare=SIZE][,pieces=any][,layout=auto|identity|packed]`. Other sizes are
/// offered where the host's pages have more than 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Bytes of RAM above the first MiB; a multiple of the hugepage size, or of 2 MiB.
    pub size: u64,
    /// The page size, if the user specified it.
    pub hugepage_size: Option<HugepageSize>,
    /// Bytes of hugepages beyond `size` that may be taken for a while, to choose the best from, if
    /// the user specified it.
    pub spare: Option<u64>,
    /// Whether identity memory may be in more pieces than are safe
    /// (`SAFE_EXTENTS` of the architecture).
    pub any_pieces: bool,
    /// Where it is for devices that use physical addresses.
    pub layout: MemoryLayout,
}

/// Fewer spare bytes than this would leave small guests without a choice.
const LEAST_SPARE: u64 = 64 << 20;

impl MemoryConfig {
    /// The size of the hugepages where hugepages it must be.
    #[must_use]
    pub fn page_size(&self) -> HugepageSize {
        self.hugepage_size.unwrap_or(HugepageSize::Mib2)
    }

    /// Hugepages beyond `size` that may be pinned for a while: half as much again, and 64 MiB at
    /// least, both rounded up to a whole page, unless the user specified another.
    #[must_use]
    pub fn spare_pages(&self) -> u64 {
        let page = self.page_size().bytes();
        let pages = match self.spare {
            Some(bytes) => bytes / page,
            None => LEAST_SPARE.max(self.size / 2).div_ceil(page),
        };
        pages.min((u64::MAX - self.size) / page)
    }
}

/// The same in its textual form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemoryTable {
    size: Size,
    #[serde(default, deserialize_with = "hugepage_size")]
    hugepage_size: Option<HugepageSize>,
    #[serde(default, deserialize_with = "text::given")]
    spare: Option<Size>,
    #[serde(default, deserialize_with = "text::given")]
    pieces: Option<Pieces>,
    #[serde(default)]
    layout: MemoryLayout,
}

#[derive(Clone, Copy, Debug, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
enum Pieces {
    Any,
}

impl<'de> Deserialize<'de> for Pieces {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::one_of(deserializer)
    }
}

fn hugepage_size<'de, D>(deserializer: D) -> Result<Option<HugepageSize>, D::Error>
where
    D: Deserializer<'de>,
{
    let word = String::deserialize(deserializer)?;
    let offered: Vec<_> = HugepageSize::of_pages(host_page_size()).collect();
    let found = offered.iter().find(|size| size.to_string() == word);
    match found {
        Some(size) => Ok(Some(*size)),
        None => {
            let names: Vec<_> = offered.iter().map(HugepageSize::to_string).collect();
            Err(text::unexpected(names.join("|"), &word))
        }
    }
}

impl Compact for MemoryConfig {
    const FIRST: &'static str = "size";
    type Table = MemoryTable;

    fn from_table(table: MemoryTable) -> Result<Self, ConfigError> {
        let memory = Self {
            size: table.size.0,
            hugepage_size: table.hugepage_size,
            spare: table.spare.map(|size| size.0),
            any_pieces: table.pieces.is_some(),
            layout: table.layout,
        };
        validate::memory(&memory)?;
        Ok(memory)
    }
}

impl FromStr for MemoryConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        text::compact(text)
    }
}

/// A string as on the command line, or a table of the same.
impl<'de> Deserialize<'de> for MemoryConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::compact_or_table(deserializer)
    }
}

/// Bytes, written as a number with a suffix.
#[derive(Debug)]
struct Size(u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let size = bytes(&word).map(Self);
        size.ok_or_else(|| text::unexpected("a size such as 512M or 2G", &word))
    }
}

/// Bytes that a number with the suffix K, M, G or T means; without one, bytes.
fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        b'T' | b't' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::layout::HAS_DEVICE_TREE;

    #[test]
    fn memory_takes_sizes_and_hugepage_sizes() {
        let (small, giant) = (Some(HugepageSize::Mib2), Some(HugepageSize::Gib1));
        for (text, size, hugepage_size, spare, any_pieces) in [
            ("512M", 512 << 20, None, None, false),
            ("1G,hugepage_size=1G", 1 << 30, giant, None, false),
            ("4194304", 4 << 20, None, None, false),
            (
                "1t,hugepage_size=2M,spare=0",
                1 << 40,
                small,
                Some(0),
                false,
            ),
            (
                "64M,pieces=any,spare=1G",
                64 << 20,
                None,
                Some(1 << 30),
                true,
            ),
        ] {
            assert_eq!(
                text.parse(),
                Ok(MemoryConfig {
                    size,
                    hugepage_size,
                    spare,
                    any_pieces,
                    layout: MemoryLayout::Auto,
                }),
                "{text}"
            );
        }
    }

    #[test]
    fn spare_memory_is_half_as_much_unless_specified() {
        let spare = |text: &str| text.parse::<MemoryConfig>().unwrap().spare_pages();
        assert_eq!(spare("512M"), 128);
        assert_eq!(spare("16M"), 32);
        assert_eq!(spare("512M,spare=0"), 0);
        assert_eq!(spare("512M,spare=7M"), 3);
        assert_eq!(
            spare("2T,spare=16777215T"),
            (u64::MAX - (2 << 40)) / (2 << 20)
        );
        // Small guests of large pages have a choice, too.
        assert_eq!(spare("1G,hugepage_size=1G"), 1);
        assert_eq!(spare("3G,hugepage_size=1G"), 2);
        assert_eq!(spare("1G,hugepage_size=1G,spare=512M"), 0);
    }

    #[test]
    fn packed_memory_is_for_guests_that_have_a_device_tree() {
        let parsed = |text: &str| text.parse::<MemoryConfig>();
        for (text, layout) in [
            ("2M,layout=auto", MemoryLayout::Auto),
            ("2M,layout=identity", MemoryLayout::Identity),
        ] {
            assert_eq!(parsed(text).unwrap().layout, layout);
        }
        let packed = parsed("2M,layout=packed").map(|memory| memory.layout);
        match HAS_DEVICE_TREE {
            true => assert_eq!(packed, Ok(MemoryLayout::Packed)),
            false => assert_eq!(packed, Err(ConfigError::PackedWithoutTree)),
        }
    }

    #[test]
    fn what_is_no_memory_is_refused_with_the_reason() {
        let refusal = |text: &str| text.parse::<MemoryConfig>().unwrap_err();
        let says = |text: &str, words: &str| {
            let refusal = refusal(text).to_string();
            assert!(refusal.contains(words), "{text}: {refusal}");
        };
        for text in [
            "",
            "M",
            "-1M",
            "+1M",
            "1.5G",
            "99999999999999999999",
            "17179869184T",
            "1é",
        ] {
            says(text, "expected a size such as 512M or 2G");
        }
        for text in ["0", "3M", "513M,hugepage_size=1G"] {
            assert!(
                matches!(refusal(text), ConfigError::NotWholePages { .. }),
                "{text}"
            );
        }
        says("2M,hugepage_size=4K", "expected 2M|1G, found \"4K\"");
        says(
            "2M,hugepages",
            "unknown field `hugepages`, expected one of `size`",
        );
        says("2M,pieces=200", "expected any, found \"200\"");
        says("2M,pieces", "expected any, found \"\"");
        says(
            "2M,layout=tight",
            "expected auto|identity|packed, found \"tight\"",
        );
        says("2M,spare=some", "expected a size");
        says("2M,spare=0,spare=2M", "duplicate field `spare`");
    }
}
