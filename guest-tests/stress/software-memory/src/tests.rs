// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fs::File;
use std::os::unix::fs::FileExt;

use address::BusAddr;
use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const COOKIE: Iova = Iova(1 << 30);

fn physical(seed: u64) -> PhysicalMemory {
    let low = Hpa(MIB)..Hpa(64 * MIB);
    let high = Hpa(1 << 32)..Hpa((1 << 32) + 64 * MIB);
    PhysicalMemory::new([low, high], 64 << 10, seed)
}

fn at_identity(hpa: Hpa) -> BusAddress {
    BusAddress::Bus(BusAddr::identity(hpa))
}

/// A file of `len` bytes, each 8 of which encode their offset.
fn file(len: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    let words = (0..len / 8).flat_map(u64::to_le_bytes).collect::<Vec<_>>();
    file.write_all_at(&words, 0).unwrap();
    file
}

fn request(file: &File, len: u64, page_size: u64) -> PinRequest<'_> {
    PinRequest {
        file,
        offset: 0,
        len,
        page_size,
        iova: COOKIE,
    }
}

/// What the bus has.
fn pinned(backend: &SoftwareBackend) -> Vec<Extent> {
    write(&backend.shared.bus).iovas.extents().to_vec()
}

#[test]
fn memory_is_scattered_and_every_word_is_where_the_extents_are() {
    let file = file(2 * MIB);
    let mut backend = SoftwareBackend::new(physical(1));
    let extents = backend.pin(&request(&file, 2 * MIB, PAGE)).unwrap();
    assert!(extents.len() >= 32, "{} extents", extents.len());
    assert_eq!(extents, pinned(&backend));
    let out_of_order = |pair: &[Extent]| pair[0].hpa() > pair[1].hpa();
    assert!(extents.windows(2).any(out_of_order));

    let port = backend.port();
    for extent in &extents {
        for offset in (0..extent.len()).step_by(1000) {
            let offset = offset & !7;
            let mut by_hpa = [0; 8];
            let mut by_iova = [0; 8];
            let (hpa, iova) = (extent.hpa() + offset, extent.iova() + offset);
            port.read(at_identity(hpa), &mut by_hpa).unwrap();
            port.read(BusAddress::Iova(iova), &mut by_iova).unwrap();
            assert_eq!(u64::from_le_bytes(by_hpa) * 8, iova - COOKIE);
            assert_eq!(by_iova, by_hpa);
        }
    }
    assert_eq!(port.fault_count(), 0);
}

#[test]
fn the_seed_decides_where_memory_lies() {
    let extents = |seed| {
        let file = file(MIB);
        let mut backend = SoftwareBackend::new(physical(seed));
        backend.pin(&request(&file, MIB, PAGE)).unwrap()
    };
    assert_eq!(extents(7), extents(7));
    assert_ne!(extents(7), extents(8));
}

#[test]
fn hugepages_stay_whole() {
    let file = file(8 * MIB);
    let mut backend = SoftwareBackend::new(physical(3));
    let extents = backend.pin(&request(&file, 8 * MIB, 2 * MIB)).unwrap();
    assert!(extents.iter().all(|e| e.hpa().is_aligned(2 * MIB)));
    assert!(extents.iter().all(|e| e.len().is_multiple_of(2 * MIB)));
    let bus = write(&backend.shared.bus);
    let leaf = bus.iovas.table().lookup(COOKIE).unwrap();
    assert!(leaf.size.bytes() >= 2 * MIB);
}

#[test]
fn what_is_not_pinned_is_refused_counted_and_named() {
    let file = file(MIB);
    let mut backend = SoftwareBackend::new(physical(4));
    let extents = backend.pin(&request(&file, MIB, PAGE)).unwrap();
    let port = backend.port();

    // Over the end of the space: not one byte is written.
    let address = BusAddress::Iova(COOKIE + (MIB - 16));
    let fault = port.write(address, &[0xff; 32]).unwrap_err();
    let expected = DmaFault {
        address,
        len: 32,
        direction: Direction::Write,
        offset: 16,
    };
    assert_eq!(fault, expected);
    assert_eq!(
        fault.to_string(),
        "DMA write of 0x20 bytes at IOVA 0x400ffff0 refused: nothing is pinned at +0x10"
    );
    let mut word = [0; 8];
    file.read_exact_at(&mut word, MIB - 16).unwrap();
    assert_eq!(u64::from_le_bytes(word), (MIB - 16) / 8);

    // Past an extent's end in the physical space, and at the very end of it.
    let neighbour = |hpa| extents.iter().any(|e| e.hpa() == hpa);
    let last = extents.iter().find(|e| !neighbour(e.hpa_end())).unwrap();
    let address = at_identity(last.hpa_end() - 1);
    assert_eq!(port.read(address, &mut word).unwrap_err().offset, 1);
    let address = BusAddress::Bus(BusAddr(u64::MAX));
    assert_eq!(port.read(address, &mut word).unwrap_err().offset, 0);
    assert_eq!(port.fault_count(), 3);
    assert_eq!(port.last_faults()[0], expected);

    for _ in 0..100 {
        port.read(address, &mut word).unwrap_err();
    }
    assert_eq!((port.fault_count(), port.last_faults().len()), (103, 64));
}

#[test]
fn unpinned_memory_is_out_of_reach_and_free_again() {
    let file = file(MIB);
    let mut backend = SoftwareBackend::new(physical(5));
    let all = backend.physical.take(126 * MIB, PAGE).unwrap();
    backend.physical.give_back(all);
    for _ in 0..200 {
        let extents = backend.pin(&request(&file, MIB, PAGE)).unwrap();
        let (port, hpa) = (backend.port(), at_identity(extents[0].hpa()));
        port.read(hpa, &mut [0; 8]).unwrap();
        let refused = backend.unpin(COOKIE, MIB - PAGE);
        assert!(matches!(refused, Err(SoftwareError::NotPinned { .. })));
        backend.unpin(COOKIE, MIB).unwrap();
        port.read(hpa, &mut [0; 8]).unwrap_err();
        assert_eq!(pinned(&backend), []);
    }
    assert!(backend.physical.take(127 * MIB, PAGE).is_ok());
}

#[test]
fn impossible_pins_are_refused_and_cost_nothing() {
    let file = file(MIB);
    let mut backend = SoftwareBackend::new(physical(6));
    backend.pin(&request(&file, MIB, PAGE)).unwrap();
    let good = PinRequest {
        iova: COOKIE + MIB,
        ..request(&file, MIB, PAGE)
    };
    let mut refuse = |request: PinRequest<'_>| backend.pin(&request).unwrap_err();
    use SoftwareError as E;
    assert!(matches!(refuse(request(&file, MIB, PAGE)), E::Pinned(_)));
    assert!(matches!(
        refuse(PinRequest { len: 0, ..good }),
        E::Misaligned { .. }
    ));
    assert!(matches!(
        refuse(PinRequest { len: 10, ..good }),
        E::Misaligned { .. }
    ));
    assert!(matches!(
        refuse(PinRequest {
            page_size: 512,
            ..good
        }),
        E::Misaligned { .. }
    ));
    assert!(matches!(
        refuse(PinRequest {
            page_size: 5000,
            ..good
        }),
        E::Misaligned { .. }
    ));
    assert!(matches!(
        refuse(PinRequest {
            offset: PAGE,
            ..good
        }),
        E::Map { .. }
    ));
    assert!(matches!(
        refuse(PinRequest {
            iova: Iova(!0xfff),
            ..good
        }),
        E::Range(_)
    ));
    // The bus' table holds IOVAs in place of physical addresses, so they end at 2^52.
    assert!(matches!(
        refuse(PinRequest {
            iova: Iova(1 << 52),
            ..good
        }),
        E::Pinned(_)
    ));
    let large = tempfile::tempfile().unwrap();
    large.set_len(256 * MIB).unwrap();
    assert!(matches!(
        refuse(PinRequest {
            file: &large,
            len: 256 * MIB,
            ..good
        }),
        E::OutOfMemory(OutOfMemory {
            free: 0x7e0_0000,
            ..
        })
    ));
    backend.pin(&good).unwrap();
    assert_eq!(backend.physical.take(125 * MIB, PAGE).map(|_| ()), Ok(()));
}

proptest! {
    /// Transfers at any IOVA against a plain array.
    #[test]
    fn transfers_reach_the_right_bytes(
        seed: u64,
        transfers in prop::collection::vec((0..MIB / 2 + 100, 0..9000_usize, any::<u8>()), 1..40),
    ) {
        let file = file(MIB / 2);
        let mut backend = SoftwareBackend::new(physical(seed));
        backend.pin(&request(&file, MIB / 2, PAGE)).unwrap();
        let mut model = vec![0; 512 << 10];
        file.read_exact_at(&mut model, 0).unwrap();
        let port = backend.port();
        let mut refused = 0;
        for (offset, len, byte) in transfers {
            let address = BusAddress::Iova(COOKIE + offset);
            let range = usize::try_from(offset).unwrap()..usize::try_from(offset).unwrap() + len;
            let written = port.write(address, &vec![byte; len]);
            let mut read = vec![!byte; len];
            match model.get_mut(range).filter(|_| len > 0) {
                Some(bytes) => {
                    bytes.fill(byte);
                    prop_assert_eq!(written, Ok(()));
                    port.read(address, &mut read).unwrap();
                    prop_assert_eq!(read, vec![byte; len]);
                }
                None if len == 0 => prop_assert_eq!(written, Ok(())),
                None => refused += 1,
            }
        }
        prop_assert_eq!(port.fault_count(), refused);
        let mut found = vec![0; 512 << 10];
        file.read_exact_at(&mut found, 0).unwrap();
        prop_assert!(found == model);
    }
}
