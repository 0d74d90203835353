//! Walks a device's capability lists. The bytes come from hardware that may be broken: loops,
//! pointers into the header and truncated lists end the walk.

use super::regs::{
    CAPABILITIES, COMMAND, CONVENTIONAL_CONFIG_SIZE, EXTENDED_CAPABILITIES, HEADER_END,
    STATUS_CAPABILITIES,
};

/// One capability in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CapabilityHeader {
    /// Capability ID; 8 bits in the standard list, 16 in the extended one.
    pub id: u16,
    /// Version, in the extended list; else 0.
    pub version: u8,
    /// Offset in config space, a multiple of 4.
    pub offset: u16,
}

/// The capabilities in the first 256 bytes of `config` (config space as dwords), in list order.
pub(crate) fn standard_capabilities(config: &[u32]) -> Vec<CapabilityHeader> {
    let dword = |offset: u16| config.get(usize::from(offset / 4)).copied().unwrap_or(0);
    if dword(COMMAND) & STATUS_CAPABILITIES == 0 {
        return Vec::new();
    }
    walk(dword(CAPABILITIES).to_le_bytes()[0].into(), |offset| {
        let inside = (HEADER_END..CONVENTIONAL_CONFIG_SIZE).contains(&offset);
        let [id, next, ..] = dword(offset).to_le_bytes();
        // A read without an answer looks like ID 0xff.
        (inside && id != 0xff).then_some((id.into(), 0, next.into()))
    })
}

/// The capabilities in the extended part of `config`, in list order. Anchors with ID 0 are left
/// out.
pub(crate) fn extended_capabilities(config: &[u32]) -> Vec<CapabilityHeader> {
    let mut list = walk(EXTENDED_CAPABILITIES, |offset| {
        let header = *config.get(usize::from(offset / 4))?;
        let inside = offset >= EXTENDED_CAPABILITIES;
        let [low, high, upper, last] = header.to_le_bytes();
        let next = u16::from_le_bytes([upper, last]) >> 4;
        (inside && header != 0 && header != u32::MAX).then_some((
            u16::from_le_bytes([low, high]),
            upper & 0xf,
            next,
        ))
    });
    list.retain(|capability| capability.id != 0);
    list
}

/// Follows next pointers from `first` as long as `header` answers with ID, version and the next
/// pointer, and no place is visited twice.
fn walk(first: u16, header: impl Fn(u16) -> Option<(u16, u8, u16)>) -> Vec<CapabilityHeader> {
    let mut found: Vec<CapabilityHeader> = Vec::new();
    let mut offset = first & !3;
    while let Some((id, version, next)) = header(offset) {
        if found.iter().any(|capability| capability.offset == offset) {
            break;
        }
        found.push(CapabilityHeader {
            id,
            version,
            offset,
        });
        offset = next & !3;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dwords: &[(u16, u32)]) -> Vec<u32> {
        let mut config = vec![0; 1024];
        config[1] = STATUS_CAPABILITIES;
        for &(offset, value) in dwords {
            config[usize::from(offset / 4)] = value;
        }
        config
    }

    fn standard(dwords: &[(u16, u32)]) -> Vec<(u16, u16)> {
        let found = standard_capabilities(&config(dwords));
        found
            .iter()
            .map(|capability| (capability.id, capability.offset))
            .collect()
    }

    fn extended(dwords: &[(u16, u32)]) -> Vec<(u16, u8, u16)> {
        let found = extended_capabilities(&config(dwords));
        found
            .iter()
            .map(|found| (found.id, found.version, found.offset))
            .collect()
    }

    #[test]
    fn lists_are_followed_in_their_order() {
        let list = [(0x34, 0x50), (0x50, 0x4005), (0x40, 0x0010)];
        assert_eq!(standard(&list), [(5, 0x50), (0x10, 0x40)]);
        let list = [(0x100, 0x2001_0001), (0x200, 0x0002_0003)];
        assert_eq!(extended(&list), [(1, 1, 0x100), (3, 2, 0x200)]);
    }

    #[test]
    fn broken_lists_end() {
        assert_eq!(standard(&[]), []);
        assert_eq!(standard(&[(0x34, 0x10)]), [], "into the header");
        assert_eq!(
            standard(&[(0x34, 0x40), (0x40, 0x4005)]),
            [(5, 0x40)],
            "to itself"
        );
        let ring = [(0x34, 0x40), (0x40, 0x4805), (0x48, 0x4001)];
        assert_eq!(standard(&ring), [(5, 0x40), (1, 0x48)]);
        assert_eq!(
            standard(&[(0x34, 0x43), (0x40, 0xffff)]),
            [],
            "unaligned, unanswered"
        );
        assert_eq!(extended(&[(0x100, u32::MAX)]), []);
        assert_eq!(
            extended(&[(0x100, 0x0401_0001)]),
            [(1, 1, 0x100)],
            "into the header"
        );
        assert_eq!(
            extended(&[(0x100, 0x1401_0000), (0x140, 0x0001_0003)]),
            [(3, 1, 0x140)]
        );
        let mut silent = config(&[(0x34, 0x40), (0x40, 5)]);
        silent[1] = 0;
        assert_eq!(standard_capabilities(&silent), []);
        assert_eq!(standard_capabilities(&[]), []);
        assert_eq!(extended_capabilities(&silent[..64]), []);
    }
}
