// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Any bytes as config space.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::convert::Infallible;

use pci_config::{
    Capability, Dwords, MAX_CAPABILITIES, MAX_EXTENDED_CAPABILITIES, MsiControl, MsixControl,
    Words, capabilities, extended_capabilities, find_capability, find_extended_capability,
    hides_capabilities, word,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Bytes, most of them with a list; many pointers are in it.
fn config() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![Just(64), Just(256), Just(4096), 0..300_usize];
    let bytes = (vec(any::<u8>(), 4096), any::<bool>());
    let links = vec((0x40..0x100_usize, 0x40..=0xff_u8), 0..40);
    let extended = vec((0..0x40_u32, 0x100..0x1000_u16), 0..40);
    (length, bytes, links, extended).prop_map(|(length, (bytes, is_random), links, extended)| {
        let mut config = if is_random { bytes } else { vec![0; 4096] };
        config[6] |= 0x10;
        let mut at = 0x34;
        for (place, next) in links {
            config[at] = next & 0xfc;
            at = usize::from(next & 0xfc) + 1;
            config[place] = config[place].wrapping_add(1);
        }
        let mut at = 0x100;
        for (id, next) in extended {
            let header = u32::from(next) << 20 | 1 << 16 | id;
            config[at..at + 4].copy_from_slice(&header.to_le_bytes());
            at = usize::from(next & 0xffc);
        }
        config.truncate(length);
        config
    })
}

/// The lists once more, apart from the product: a pointer at a time, with a set of places.
fn walk(config: &[u8], is_extended: bool) -> Vec<(u16, u16)> {
    let byte = |at: u16| config.get(usize::from(at)).copied().unwrap_or(0xff);
    let pair = |at: u16| match config.get(usize::from(at)..usize::from(at) + 2) {
        Some(&[low, high]) => (low, high),
        _ => (0xff, 0xff),
    };
    let (mut found, mut places) = (Vec::new(), BTreeSet::new());
    if !is_extended {
        let has_list = pair(6).0 & 0x10 != 0;
        let mut at = u16::from(byte(0x34) / 4 * 4);
        while has_list && at >= 0x40 && places.insert(at) && pair(at).0 != 0xff {
            found.push((pair(at).0.into(), at));
            at = u16::from(pair(at).1 / 4 * 4);
        }
        return found;
    }
    let mut at = 0x100;
    while at >= 0x100 && places.insert(at) {
        let ((low, high), (third, last)) = (pair(at), pair(at + 2));
        let header = [low, high, third, last];
        if header == [0; 4] || header == [0xff; 4] {
            break;
        }
        let id = u16::from(low) + 256 * u16::from(high);
        if id != 0 {
            found.push((id, at));
        }
        at = (u16::from(third >> 4) + 16 * u16::from(last)) / 4 * 4;
    }
    found
}

fn short(list: &[Capability]) -> Vec<(u16, u16)> {
    list.iter().map(|found| (found.id, found.offset)).collect()
}

proptest! {
    #[test]
    fn every_list_ends_within_its_bounds(config in config()) {
        // A walk that does not end fails, and does not fill the memory.
        let standard = capabilities(&config[..]).take(1000);
        let standard: Vec<_> = standard.map(|Ok(found)| found).collect();
        let extended = extended_capabilities(&config[..]).take(1000);
        let extended: Vec<_> = extended.map(|Ok(found)| found).collect();
        prop_assert!(standard.len() <= MAX_CAPABILITIES);
        prop_assert!(extended.len() <= MAX_EXTENDED_CAPABILITIES);
        let lists = [(&standard, 0x40..0x100_u16), (&extended, 0x100..0x1000)];
        for (list, bounds) in lists {
            let places: BTreeSet<u16> = list.iter().map(|found| found.offset).collect();
            prop_assert_eq!(places.len(), list.len());
            prop_assert!(places.iter().all(|at| bounds.contains(at) && at % 4 == 0));
            // A capability begins with bytes that are there, if only with some of them.
            prop_assert!(places.iter().all(|at| usize::from(*at) < config.len()));
        }
        prop_assert_eq!(short(&standard), walk(&config, false));
        prop_assert_eq!(short(&extended), walk(&config, true));
        let has_list = word(&config, 6).is_none_or(|status| status & 0x10 != 0);
        prop_assert_eq!(hides_capabilities(&config), config.len() <= 64 && has_list);
    }

    #[test]
    fn every_way_to_read_gives_the_same_list(config in config()) {
        let ones = |at: u16| word(&config, at).unwrap_or(u16::MAX);
        let by_word = Words(|at| Ok::<_, Infallible>(ones(at)));
        let by_dword = Dwords(|at| Ok::<_, Infallible>(u32::from(ones(at)) | u32::from(ones(at + 2)) << 16));
        prop_assert!(capabilities(by_word).eq(capabilities(&config[..])));
        prop_assert!(capabilities(by_dword).eq(capabilities(&config[..])));
        prop_assert!(extended_capabilities(by_word).eq(extended_capabilities(&config[..])));
        prop_assert!(extended_capabilities(by_dword).eq(extended_capabilities(&config[..])));
    }

    #[test]
    fn the_first_of_an_id_is_found(config in config(), id: u8) {
        let first = |list: Vec<(u16, u16)>| list.into_iter().find(|(found, _)| *found == id.into());
        let standard = first(walk(&config, false)).map(|(_, at)| at);
        prop_assert_eq!(find_capability(&config[..], id), Ok(standard));
        let extended = first(walk(&config, true)).map(|(_, at)| at);
        prop_assert_eq!(find_extended_capability(&config[..], id.into()), Ok(extended));
    }

    #[test]
    fn a_read_that_fails_is_the_last_item(config in config(), good in 0..100_usize) {
        for is_extended in [false, true] {
            let left = Cell::new(good);
            let read = Words(|at| match left.get().checked_sub(1) {
                Some(rest) => {
                    left.set(rest);
                    Ok(word(&config, at).unwrap_or(u16::MAX))
                }
                None => Err(at),
            });
            let list: Vec<_> = match is_extended {
                false => capabilities(read).collect(),
                true => extended_capabilities(read).collect(),
            };
            let found: Vec<_> = list.iter().map_while(|item| item.as_ref().ok().copied()).collect();
            let all = walk(&config, is_extended);
            prop_assert_eq!(&short(&found)[..], &all[..found.len()]);
            match list.len() - found.len() {
                0 => prop_assert_eq!(found.len(), all.len()),
                failed => prop_assert_eq!((failed, left.get()), (1, 0)),
            }
        }
    }

    #[test]
    fn any_message_control_is_decoded(control: u16) {
        prop_assert!((1..=2048).contains(&MsixControl(control).vectors()));
        prop_assert!(matches!(MsiControl(control).length(), 0x0a | 0x0e | 0x14 | 0x18));
        prop_assert!(MsiControl(control).capable() < 8 && MsiControl(control).granted() < 8);
    }
}
