// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! VFIO's description of a region of a device: `VFIO_DEVICE_GET_REGION_INFO` and the capabilities
//! behind it. Pure, since the kernel's answer is input like any other.

use std::ops::Range;

use vfio_bindings::bindings::vfio;

/// Length in bytes of the fixed part, `struct vfio_region_info`.
const HEADER: usize = 32;
/// Capabilities in one answer; more is taken for a loop in the chain.
const MAX_CAPABILITIES: usize = 64;

/// One region of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Size in bytes; 0 where the device has no such region.
    pub size: u64,
    /// Where the region begins in the device's file.
    pub file_offset: u64,
    /// Whether it can be read.
    pub readable: bool,
    /// Whether it can be written.
    pub writable: bool,
    /// The parts that can be mapped, ascending and disjoint, as offsets in the region.
    pub mappable: Vec<Range<u64>>,
}

/// The kernel's answer contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host kernel's description of a region is malformed at byte {at}")]
pub struct MalformedRegion {
    /// Offset of the contradiction in the answer.
    pub at: usize,
}

impl Region {
    /// Reads the kernel's answer.
    ///
    /// # Errors
    /// [`MalformedRegion`] if it is too short, its capabilities loop or lie outside, or a
    /// mappable part lies outside the region.
    pub fn parse(answer: &[u8]) -> Result<Self, MalformedRegion> {
        let flags = word(answer, 4)?;
        let size = long(answer, 16)?;
        let mut region = Self {
            size,
            file_offset: long(answer, 24)?,
            readable: flags & vfio::VFIO_REGION_INFO_FLAG_READ != 0,
            writable: flags & vfio::VFIO_REGION_INFO_FLAG_WRITE != 0,
            mappable: Vec::new(),
        };
        if flags & vfio::VFIO_REGION_INFO_FLAG_MMAP == 0 || size == 0 {
            return Ok(region);
        }
        region.mappable = vec![0..size];
        if flags & vfio::VFIO_REGION_INFO_FLAG_CAPS != 0 {
            let mut at = word(answer, 12)? as usize;
            for _ in 0..MAX_CAPABILITIES {
                if at == 0 {
                    return Ok(region);
                }
                if at < HEADER {
                    return Err(MalformedRegion { at });
                }
                let id = word(answer, at)? & 0xffff;
                if id == vfio::VFIO_REGION_INFO_CAP_SPARSE_MMAP {
                    region.mappable = sparse_areas(answer, at, size)?;
                }
                at = word(answer, at + 4)? as usize;
            }
            return Err(MalformedRegion { at });
        }
        Ok(region)
    }
}

/// The areas of the sparse-mmap capability at `at`.
fn sparse_areas(answer: &[u8], at: usize, size: u64) -> Result<Vec<Range<u64>>, MalformedRegion> {
    let count = word(answer, at + 8)? as usize;
    let mut areas: Vec<Range<u64>> = Vec::new();
    for index in 0..count {
        let entry = at + 16 + index * 16;
        let malformed = MalformedRegion { at: entry };
        let start = long(answer, entry)?;
        let end = start
            .checked_add(long(answer, entry + 8)?)
            .ok_or(malformed)?;
        if end > size {
            return Err(malformed);
        }
        if start < end {
            areas.push(start..end);
        }
    }
    areas.sort_by_key(|area| area.start);
    if areas.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Err(MalformedRegion { at });
    }
    Ok(areas)
}

fn word(answer: &[u8], at: usize) -> Result<u32, MalformedRegion> {
    let bytes = answer.get(at..).and_then(|rest| rest.first_chunk());
    bytes
        .map(|bytes| u32::from_ne_bytes(*bytes))
        .ok_or(MalformedRegion { at })
}

fn long(answer: &[u8], at: usize) -> Result<u64, MalformedRegion> {
    let bytes = answer.get(at..).and_then(|rest| rest.first_chunk());
    bytes
        .map(|bytes| u64::from_ne_bytes(*bytes))
        .ok_or(MalformedRegion { at })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAPS: u32 = 0xf;

    fn answer(flags: u32, cap: u32, size: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for field in [64, flags, 0, cap] {
            bytes.extend(field.to_ne_bytes());
        }
        bytes.extend(size.to_ne_bytes());
        bytes.extend((3_u64 << 40).to_ne_bytes());
        bytes
    }

    fn capability(id: u16, next: u32) -> Vec<u8> {
        let mut bytes = id.to_ne_bytes().to_vec();
        bytes.extend(1_u16.to_ne_bytes());
        bytes.extend(next.to_ne_bytes());
        bytes
    }

    fn sparse(next: u32, areas: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = capability(1, next);
        bytes.extend(u32::try_from(areas.len()).unwrap().to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        for (start, size) in areas {
            bytes.extend(start.to_ne_bytes());
            bytes.extend(size.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn a_plain_region_maps_as_a_whole_and_a_port_region_not_at_all() {
        let memory = Region::parse(&answer(7, 0, 0x4000)).unwrap();
        assert_eq!(memory.mappable, [0..0x4000]);
        assert_eq!(memory.file_offset, 3 << 40);
        assert!(memory.readable && memory.writable);
        let ports = Region::parse(&answer(3, 0, 0x20)).unwrap();
        assert!(ports.mappable.is_empty());
    }

    #[test]
    fn sparse_areas_replace_the_whole_wherever_they_are_in_the_chain() {
        let mut bytes = answer(CAPS, 32, 0x4000);
        bytes.extend(capability(3, 40));
        bytes.extend(sparse(0, &[(0x3000, 0x1000), (0, 0x1000), (0x2000, 0)]));
        let region = Region::parse(&bytes).unwrap();
        assert_eq!(region.mappable, [0..0x1000, 0x3000..0x4000]);
    }

    #[test]
    fn contradictions_are_errors() {
        let mut looped = answer(CAPS, 32, 0x4000);
        looped.extend(capability(3, 32));
        let mut outside = answer(CAPS, 32, 0x4000);
        outside.extend(sparse(0, &[(0x3000, 0x1001)]));
        let mut wraps = answer(CAPS, 32, 0x4000);
        wraps.extend(sparse(0, &[(0x3000, u64::MAX)]));
        let mut overlap = answer(CAPS, 32, 0x4000);
        overlap.extend(sparse(0, &[(0, 0x2000), (0x1000, 0x1000)]));
        let into_header = answer(CAPS, 8, 0x4000);
        let past_the_end = answer(CAPS, 0xffff_fff0, 0x4000);
        let short = answer(CAPS, 0, 0x4000)[..31].to_vec();
        for bytes in [
            looped,
            outside,
            wraps,
            overlap,
            into_header,
            past_the_end,
            short,
        ] {
            assert!(Region::parse(&bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_an_error_or_stays_inside(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            if let Ok(region) = Region::parse(&bytes) {
                prop_assert!(region.mappable.iter().all(|area| area.end <= region.size));
            }
        }
    }
}
