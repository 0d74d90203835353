// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Vectors that the host has or lacks, and what a device that sleeps or was reset has of them.

use devices::pci::{BarKind, MsiMessage, PciFunction};
use devices::vfio_pci::InterruptKind;
use devices_testing::Call;

use super::interrupts::{MSI, MSIX, TABLE, image};
use super::{Bench, INTX_DISABLE, MEMORY};

#[test]
fn a_host_that_cannot_add_vectors_turns_all_on_at_once() {
    let mut image = image();
    image.info.interrupts[InterruptKind::Msix].grows = false;
    let mut bench = Bench::new(image);
    bench.command(MEMORY | INTX_DISABLE);
    let _ = bench.calls();
    bench.write(MSIX + 2, &[0, 0x80]);
    let all = Call::Enable {
        kind: InterruptKind::Msix,
        vectors: 5,
    };
    assert_eq!(bench.calls(), [all]);
    bench.bar_write(0, TABLE + 16 * 4 + 12, 0);
    assert!(bench.witness.interrupts().unwrap().1[4].is_some());
}

#[test]
fn vectors_that_the_host_lacks_do_not_fire_and_end_nothing() {
    for grows in [true, false] {
        let mut image = image();
        image.info.interrupts[InterruptKind::Msix].grows = grows;
        let mut bench = Bench::new(image);
        bench.witness.serve_at_most(2);
        bench.command(MEMORY | INTX_DISABLE);
        bench.write(MSIX + 2, &[0, 0x80]);
        for vector in 0..5 {
            bench.bar_write(0, TABLE + 16 * vector + 12, 0);
        }
        let on = |bench: &Bench| bench.witness.interrupts().unwrap().1;
        assert_eq!(on(&bench), [Some(MsiMessage::default()); 2]);
        assert_eq!(bench.failures(), Vec::<String>::new());
        // Once it has them, the guest's next unmask gets one.
        if grows {
            bench.witness.serve_at_most(3);
            bench.bar_write(0, TABLE + 16 * 4 + 12, 0);
            assert_eq!(on(&bench).len(), 5);
        }
    }
    // Fewer MSI vectors than the guest was offered.
    let mut bench = Bench::new(image());
    bench.witness.serve_at_most(1);
    bench.command(MEMORY | INTX_DISABLE);
    bench.write(MSI + 2, &[0x21]);
    assert_eq!(bench.witness.interrupts().unwrap().1.len(), 1);
    let _ = bench.calls();
    bench.write(MSI + 4, &[0, 0x10, 0xe0, 0xfe]);
    assert!(!bench.calls().contains(&Call::Disable));
    assert_eq!(bench.failures(), Vec::<String>::new());
}

#[test]
fn the_last_vector_alone_takes_none_of_those_before_it() {
    let mut image = image();
    image.config[0x52..0x54].copy_from_slice(&0x7ff_u16.to_le_bytes());
    image.config[0x54..0x5c].copy_from_slice(&[0, 0x10, 0, 0, 0, 0xc, 0, 0]);
    let bar = BarKind::Memory32 {
        prefetchable: false,
    };
    let mut bench = Bench::new(image.bar(0, bar, 0x10000, 0xfe00_0000));
    bench.command(MEMORY | INTX_DISABLE);
    bench.write(MSIX + 2, &[0, 0x80]);
    bench.bar_write(0, 0x1000 + 16 * 2047 + 12, 0);
    let calls = bench.calls();
    let taken = calls.iter().filter_map(|call| match call {
        Call::Enable { vectors, .. } => Some(*vectors),
        Call::Connect { .. } => Some(1),
        _ => None,
    });
    assert_eq!(taken.sum::<u16>(), 2, "{calls:?}");
    assert_eq!(bench.witness.interrupts().unwrap().1.len(), 2048);
}

/// Linux restores MSI-X after a reset by masking the function while MSI-X is on.
#[test]
fn msix_that_the_device_lost_is_turned_on_again() {
    let mut bench = Bench::new(image());
    bench.command(MEMORY | INTX_DISABLE);
    bench.write(MSIX + 2, &[0, 0x80]);
    bench.bar_write(0, TABLE + 12, 0);
    let restore = |bench: &mut Bench| {
        let _ = bench.calls();
        bench.write(MSIX + 2, &[0, 0xc0]);
        bench.write(MSIX + 2, &[0, 0x80]);
        bench.calls()
    };
    // The table alone.
    let kept = restore(&mut bench);
    assert!(kept.contains(&Call::Restore), "{kept:?}");
    assert!(!kept.contains(&Call::Disable), "{kept:?}");
    bench.witness.lose_msix();
    let lost = restore(&mut bench);
    assert!(lost.contains(&Call::Disable), "{lost:?}");
    assert_eq!(bench.witness.config(0x52..0x54)[1] & 0x80, 0x80);
    assert!(bench.witness.interrupts().unwrap().1[0].is_some());
    // Masks of vectors, and the first unmasking of the function, cost nothing.
    let _ = bench.calls();
    bench.bar_write(0, TABLE + 12, 1);
    bench.bar_write(0, TABLE + 12, 0);
    bench.write(MSIX + 2, &[0, 0x80]);
    assert!(!bench.calls().contains(&Call::Restore));
}

/// Linux writes Message Control, unchanged, with each message, and turns MSI off and on to restore
/// it.
#[test]
fn msi_that_is_on_is_turned_on_again_only_after_it_was_off() {
    let mut bench = Bench::new(image());
    bench.command(MEMORY | INTX_DISABLE);
    let on = |vectors| Call::Enable {
        kind: InterruptKind::Msi,
        vectors,
    };
    let message = MsiMessage {
        address: 0xfee0_1000,
        data: 0,
    };
    let connect = |vector: u16| Call::Connect {
        vector,
        message: MsiMessage {
            data: vector.into(),
            ..message
        },
    };
    bench.write(MSI + 4, &[0, 0x10, 0xe0, 0xfe]);
    bench.write(MSI + 2, &[0x11]);
    let turned_on = bench.calls();
    assert!(turned_on.ends_with(&[on(2), connect(0), connect(1)]));
    for control in [vec![0x11], vec![0x11, 0], vec![0x91, 0xff]] {
        bench.write(MSI + 2, &control);
        assert_eq!(bench.calls(), [], "{control:x?}");
        assert_eq!(bench.read(MSI + 2, 2), 0x0195);
    }
    // With another number of vectors it is another MSI.
    bench.write(MSI + 2, &[0x01]);
    assert_eq!(bench.calls(), [Call::Disable, on(1), connect(0)]);
    bench.write(MSI + 2, &[0x00]);
    bench.write(MSI + 2, &[0x01]);
    assert_eq!(bench.calls(), [Call::Disable, on(1), connect(0)]);
}

#[test]
fn interrupts_stay_as_they_are_while_the_device_sleeps() {
    let image = image().capability(0x40, 0x01, &[3, 0, 8, 0, 0, 0]);
    let mut bench = Bench::new(image);
    bench.command(MEMORY | INTX_DISABLE);
    bench.bar_write(0, TABLE + 16 * 2 + 12, 0);
    bench.write(0x44, &[3, 0]);
    let _ = bench.calls();
    bench.write(MSIX + 2, &[0, 0x80]);
    bench.command(MEMORY);
    assert_eq!(bench.witness.interrupts(), None);
    assert_eq!(bench.witness.mapped(), []);
    bench.write(0x44, &[0, 0]);
    let (kind, vectors) = bench.witness.interrupts().unwrap();
    assert_eq!((kind, vectors.len()), (InterruptKind::Msix, 3));
    // And off only then, but for a reset.
    bench.write(0x44, &[3, 0]);
    bench.write(MSIX + 2, &[0, 0]);
    assert!(bench.witness.interrupts().is_some());
    bench.function.reset();
    assert_eq!(bench.witness.interrupts(), None);
}
