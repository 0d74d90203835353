// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks that identity memory is in few enough pieces for a guest's devices to be safe.

use iommufd_backend::host_page_size;
use iommufd_backend::hugepages::HugepageSize;

use super::choice::Choice;
use crate::arch::TOO_MANY_PIECES;

/// Identity memory in so many pieces that a guest may use low memory for DMA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Guest memory is in {pieces} pieces, more than the {most} that are safe: {TOO_MANY_PIECES}"
)]
pub struct TooManyPieces {
    pieces: usize,
    most: usize,
    size: HugepageSize,
    /// Bytes of hugepages that are available in no more pieces than are safe.
    safe: Option<u64>,
}

/// Checks pages of `size` that were chosen for identity memory.
///
/// # Errors
/// [`TooManyPieces`] if they are in more pieces than are safe.
pub fn check(choice: &Choice, size: HugepageSize) -> Result<(), TooManyPieces> {
    if choice.is_safe() {
        return Ok(());
    }
    Err(TooManyPieces {
        pieces: choice.chosen.extents,
        most: choice.most,
        size,
        safe: choice.safe_pages.map(|pages| pages as u64 * size.bytes()),
    })
}

impl TooManyPieces {
    /// Ways to fewer pieces, and how to accept these.
    #[must_use]
    pub fn hint(&self) -> String {
        let has_giant =
            HugepageSize::of_pages(host_page_size()).any(|size| size == HugepageSize::Gib1);
        let (size_option, larger) = match self.size {
            HugepageSize::Mib2 if !has_giant => (String::new(), ""),
            HugepageSize::Mib2 => (
                String::new(),
                "use hugepages of 1 GiB (hugepagesz=1G hugepages=N on the host kernel's command \
                 line and --memory SIZE,hugepage_size=1G); or ",
            ),
            size => (format!(",hugepage_size={size}"), ""),
        };
        let less = self.safe.map(|safe| {
            format!(
                "--memory {}M{size_option} needs no more than {} pieces; or ",
                safe >> 20,
                self.most
            )
        });
        format!(
            "{}{larger}reserve hugepages at boot (hugepages=N on the host kernel's command line), \
             before memory gets fragmented; or accept the risk: --memory SIZE,pieces=any",
            less.unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Overhead;
    use crate::error::explain::{ExitCode, Explain};
    use crate::memory::LayoutError;

    fn choice(extents: usize) -> Choice {
        Choice {
            pinned: 200,
            kept: Vec::new(),
            chosen: Overhead {
                extents,
                ..Overhead::default()
            },
            naive: Overhead::default(),
            placed: true,
            most: 127,
            safe_pages: Some(194),
        }
    }

    #[test]
    fn one_piece_more_than_is_safe_is_refused() {
        assert_eq!(check(&choice(127), HugepageSize::Mib2), Ok(()));
        let refused = check(&choice(128), HugepageSize::Mib2).unwrap_err();
        assert_eq!(refused.safe, Some(388 << 20));
        let error = LayoutError::from(refused);
        assert_eq!(
            (error.id(), error.exit_code()),
            ("too-many-pieces", ExitCode::Memory)
        );
    }

    #[test]
    fn there_are_ways_out() {
        let hint = |size, safe| {
            let error = TooManyPieces {
                pieces: 140,
                most: 127,
                size,
                safe,
            };
            error.hint()
        };
        let small = hint(HugepageSize::Mib2, Some(388 << 20));
        for part in [
            "--memory 388M needs",
            "hugepagesz=1G",
            "at boot",
            "pieces=any",
        ] {
            assert!(small.contains(part), "{small}");
        }
        let giant = hint(HugepageSize::Gib1, Some(130 << 30));
        assert!(
            giant.starts_with("--memory 133120M,hugepage_size=1G needs"),
            "{giant}"
        );
        assert!(!giant.contains("hugepagesz"), "{giant}");
        let none = hint(HugepageSize::Mib2, None);
        assert!(none.starts_with("use hugepages of 1 GiB"), "{none}");
    }
}
