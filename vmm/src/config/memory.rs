//! How much memory a guest has, and what it is made of.

use std::str::FromStr;

use iommufd_backend::hugepages::HugepageSize;

use super::ConfigError;

/// Guest RAM: `SIZE[,hugepage_size=2M|1G][,spare=SIZE][,pieces=any]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Bytes of RAM above the first MiB; a multiple of the hugepage size, or of 2 MiB.
    pub size: u64,
    /// What it is made of, where the user said so.
    pub hugepage_size: Option<HugepageSize>,
    /// Bytes of hugepages beyond `size` that may be pinned for a while, to choose the best from,
    /// where the user said so.
    pub spare: Option<u64>,
    /// Whether identity memory may be in more pieces than are safe
    /// (`SAFE_EXTENTS` of the architecture).
    pub any_pieces: bool,
}

/// Fewer spare bytes than this would leave small guests without a choice.
const LEAST_SPARE: u64 = 64 << 20;

impl MemoryConfig {
    /// The size of the hugepages where hugepages it must be.
    #[must_use]
    pub fn page_size(&self) -> HugepageSize {
        self.hugepage_size.unwrap_or(HugepageSize::Mib2)
    }

    /// Hugepages beyond `size` that may be pinned for a while: half as much again, and 64 MiB at least,
    /// both rounded up to a whole page, unless the user said something else.
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

impl FromStr for MemoryConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut parts = text.split(',');
        let size_text = parts.next().unwrap_or_default();
        let size = size(size_text)?;
        let (mut hugepage_size, mut spare, mut any_pieces) = (None, None, false);
        for part in parts {
            match part.split_once('=') {
                Some(("hugepage_size", "2M")) => hugepage_size = Some(HugepageSize::Mib2),
                Some(("hugepage_size", "1G")) => hugepage_size = Some(HugepageSize::Gib1),
                Some(("hugepage_size", other)) => {
                    return Err(ConfigError::HugepageSize(other.to_owned()));
                }
                Some(("spare", text)) => spare = Some(self::size(text)?),
                Some(("pieces", "any")) => any_pieces = true,
                _ => {
                    return Err(ConfigError::Key {
                        found: part.to_owned(),
                        expected: "hugepage_size=2M|1G, spare=SIZE or pieces=any",
                    });
                }
            }
        }
        let page_size = hugepage_size.unwrap_or(HugepageSize::Mib2);
        if size == 0 || size % page_size.bytes() != 0 {
            return Err(ConfigError::NotWholePages {
                found: size_text.to_owned(),
                page_size,
            });
        }
        Ok(Self {
            size,
            hugepage_size,
            spare,
            any_pieces,
        })
    }
}

/// Bytes that a number with the suffix K, M, G or T means; without one, bytes.
fn size(text: &str) -> Result<u64, ConfigError> {
    let error = || ConfigError::Size(text.to_owned());
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        Some(b'T' | b't') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(error());
    }
    let number: u64 = digits.parse().map_err(|_| error())?;
    number.checked_mul(1 << shift).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

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
                    any_pieces
                }),
                "{text}"
            );
        }
    }

    #[test]
    fn spare_memory_is_half_as_much_unless_said() {
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
    fn what_is_no_memory_is_refused_with_the_reason() {
        let refusal = |text: &str| text.parse::<MemoryConfig>().unwrap_err();
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
            assert!(matches!(refusal(text), ConfigError::Size(_)), "{text}");
        }
        for text in ["0", "3M", "513M,hugepage_size=1G"] {
            assert!(
                matches!(refusal(text), ConfigError::NotWholePages { .. }),
                "{text}"
            );
        }
        assert!(matches!(
            refusal("2M,hugepage_size=4K"),
            ConfigError::HugepageSize(_)
        ));
        for text in ["2M,hugepages", "2M,pieces=200", "2M,pieces"] {
            assert!(matches!(refusal(text), ConfigError::Key { .. }), "{text}");
        }
        assert!(matches!(refusal("2M,spare=some"), ConfigError::Size(_)));
    }
}
