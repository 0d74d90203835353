// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From reset to shutdown.

use std::string::ToString;
use std::vec::Vec;

use super::machine::Memory;
use super::simulated::{BAR_BYTES, Handle, Quirk, Simulated};
use crate::nvme::{
    Cmb, Command, Namespace, NvmeError, Prp, PrpBuilder, PrpList, Status, SubmitError, Waiting,
};

fn machine() -> (Memory, Simulated) {
    let memory = Memory::default();
    let device = Simulated::new(&memory, 32, 9, 64, 3);
    (memory, device)
}

fn error(device: Simulated) -> NvmeError {
    device.share().start().map(|_| ()).expect_err("an error")
}

#[test]
fn a_driver_knows_its_device() {
    let (memory, device) = machine();
    let device = device.share();
    let driver = device.start().unwrap();
    let namespace = Namespace {
        nsid: 3,
        blocks: 64,
        block_bytes: 512,
    };
    assert_eq!(driver.namespace(), namespace);
    assert_eq!(driver.max_transfer(), 4096 << 3);
    assert_eq!(driver.depth(), 31);
    let vector = u32::from(driver.interrupt_vector());
    assert_eq!(device.0.borrow().vector, Some(vector));
    assert_eq!(driver.cmb(), Ok(None));
    assert_eq!(memory.given_back(), 0);
    driver.shutdown().unwrap();
    assert!(device.0.borrow().shut_down);
    assert_eq!((memory.in_use(), memory.given_back()), (0, 5));
}

#[test]
fn a_device_that_someone_left_enabled_is_reset() {
    // Ready, fatally wrong, or on the way to ready for ever.
    for csts in [1, 3, 2, 0] {
        let (_, mut device) = machine();
        device.leave_enabled(csts);
        let device = device.share();
        for _ in 0..2 {
            // Dropped, not shut down.
            assert!(device.start().is_ok(), "CSTS {csts}");
            assert!(!device.0.borrow().is_enabled());
        }
    }
}

#[test]
fn a_device_before_version_1_1_has_namespace_1() {
    let (_, mut device) = machine();
    device.version = 0x0001_0000;
    let driver = device.share().start().unwrap();
    assert_eq!(driver.namespace().nsid, 1);
}

#[test]
fn the_command_set_is_selected_as_the_device_offers_it() {
    for (css, expected) in [(0x01, 0), (0xc1, 0), (0x40, 6 << 4)] {
        let (_, mut device) = machine();
        device.cap = device.cap & !(0xff << 37) | css << 37;
        let device = device.share();
        let driver = device.start().unwrap();
        use crate::registers::Registers;
        assert_eq!(device.read32(0x14) & 0x70, expected);
        drop(driver);
    }
    let (_, mut device) = machine();
    device.cap = device.cap & !(0xff << 37) | 0x80 << 37;
    assert_eq!(error(device), NvmeError::NoNvmCommandSet { css: 0x80 });
}

#[test]
fn capabilities_without_use_are_refused() {
    let (_, mut device) = machine();
    device.cap &= !0xffff;
    assert_eq!(error(device), NvmeError::QueuesTooShort);
    let (_, mut device) = machine();
    device.cap |= 2 << 48;
    assert_eq!(error(device), NvmeError::PageSize { mpsmin: 2 });
    let (_, mut device) = machine();
    device.cap |= 0xf << 32;
    let too_small = NvmeError::BarTooSmall {
        size: BAR_BYTES,
        need: 0x1000 + 3 * (4 << 15) + 4,
        stride: 15,
    };
    assert_eq!(error(device), too_small);
    let (_, mut device) = machine();
    device.version = u32::MAX;
    assert_eq!(error(device), NvmeError::Gone { register: 8 });
}

#[test]
fn what_identify_returns_is_checked() {
    let changed = |at: usize, value: u8| {
        let (_, mut device) = machine();
        device.identify_namespace[at] = value;
        device.share().start()
    };
    let format = |lbads, metadata| NvmeError::Format {
        nsid: 3,
        lbads,
        metadata,
    };
    for lbads in [0, 8, 17, 32, 64, 255] {
        assert_eq!(changed(134, lbads).unwrap_err(), format(lbads, 0));
    }
    assert_eq!(changed(133, 1).unwrap_err(), format(9, 256));
    // Blocks of 2^30 bytes: the first format.
    assert_eq!(changed(26, 0).unwrap_err(), format(30, 0));
    // With fewer than 17 formats bits 6:5 have no meaning.
    assert!(changed(26, 0x61).is_ok());
    let size = |blocks| NvmeError::NamespaceSize {
        nsid: 3,
        blocks,
        block_bytes: 512,
    };
    assert_eq!(changed(0, 0).unwrap_err(), size(0));
    assert_eq!(changed(7, 0x80).unwrap_err(), size(0x8000_0000_0000_0040));

    let (_, mut device) = machine();
    device.identify_namespace[25] = 63;
    device.identify_namespace[26] = 0x6f; // format 63
    device.identify_namespace[128 + 4 * 63 + 2] = 12;
    assert_eq!(
        device.share().start().unwrap().namespace().block_bytes,
        4096
    );

    let (_, mut device) = machine();
    device.identify_controller[512] = 0x77;
    let sizes = NvmeError::EntrySizes {
        sqes: 0x77,
        cqes: 0x44,
    };
    assert_eq!(error(device), sizes);
    let none = |namespaces, first| NvmeError::NoNamespace { namespaces, first };
    let (_, mut device) = machine();
    device.identify_controller[516] = 2;
    assert_eq!(error(device), none(2, 3));
    let (_, mut device) = machine();
    device.active_namespaces.fill(0);
    assert_eq!(error(device), none(9, 0));
}

#[test]
fn the_largest_transfer_is_bounded_by_both_limits() {
    let max = |mdts, lbads| {
        let memory = Memory::default();
        let mut device = Simulated::new(&memory, 4, lbads, 1, 0);
        device.identify_controller[77] = mdts;
        device.share().start().map(|driver| driver.max_transfer())
    };
    for mdts in [0, 14, 40, 51, 52, 63, 64, 255] {
        assert_eq!(max(mdts, 9), Ok(65536 * 512), "MDTS {mdts}");
    }
    assert_eq!(max(1, 9), Ok(8192));
    assert_eq!(max(4, 16), Ok(65536));
    let short = NvmeError::TransferTooShort {
        max: 32768,
        block_bytes: 65536,
    };
    assert_eq!(max(3, 16), Err(short));
}

#[test]
fn commands_of_the_wrong_length_are_not_submitted() {
    let (memory, device) = machine();
    let mut driver = device.share().start().unwrap();
    let data = memory.pages(9, 0);
    let list = PrpList {
        buffer: &data,
        first_page: 8,
        first_entry: 0,
    };
    let prp = |bytes| {
        PrpBuilder::new(&data.pages[..8], 0, bytes)
            .and_then(|builder| builder.build(&list))
            .unwrap()
    };
    let blocks = |blocks, max| Err(SubmitError::Blocks { blocks, max });
    assert_eq!(driver.submit(Command::read(0, 0, Prp::NONE)), blocks(0, 64));
    assert_eq!(driver.submit(Command::read(0, 65, prp(4))), blocks(65, 64));
    let length = |prp, blocks| Err(SubmitError::Length { prp, blocks });
    assert_eq!(
        driver.submit(Command::write(0, 9, prp(4096))),
        length(4096, 4608)
    );
    assert_eq!(
        driver.submit(Command::read(0, 1, Prp::NONE)),
        length(0, 512)
    );
    let flush = Command {
        prp: prp(4),
        ..Command::flush()
    };
    assert_eq!(driver.submit(flush), length(4, 0));
    assert!(driver.submit(Command::read(0, 64, prp(32768))).is_ok());
    assert_eq!(driver.in_flight(), 1);
}

/// A start that fails gives an error in time; memory comes back only from a shutdown.
#[test]
fn devices_that_do_not_answer_time_out() {
    let timeout = |waiting, ms, csts| NvmeError::Timeout { waiting, ms, csts };
    let admin = |opcode| timeout(Waiting::Admin { opcode }, 10_000, 1);
    let cases = [
        (Quirk::NeverReady, timeout(Waiting::Ready, 1500, 0)),
        (Quirk::Fatal, NvmeError::Fatal { csts: 3 }),
        (Quirk::FatalAtEnable, NvmeError::Fatal { csts: 2 }),
        (Quirk::Silent(6), admin(6)),
        (Quirk::Silent(9), admin(9)),
        (Quirk::Silent(5), admin(5)),
        (Quirk::Silent(1), admin(1)),
    ];
    for (quirk, expected) in cases {
        let (memory, mut device) = machine();
        device.quirk = quirk;
        let device = device.share();
        assert_eq!(device.start().map(|_| ()), Err(expected), "{quirk:?}");
        assert!(!device.0.borrow().is_enabled(), "{quirk:?}");
        assert_eq!(memory.given_back(), 0, "{quirk:?}");
    }
    let (_, mut device) = machine();
    device.leave_enabled(1);
    device.quirk = Quirk::NeverDisabled;
    assert_eq!(error(device), timeout(Waiting::Disabled, 1500, 1));
}

#[test]
fn admin_commands_that_fail_report_why() {
    for opcode in [6, 9, 5, 1] {
        let (_, mut device) = machine();
        device.quirk = Quirk::Fails(opcode, 0x4102);
        let status = Status {
            code_type: 1,
            code: 2,
            do_not_retry: true,
            more: false,
        };
        let error = error(device);
        assert_eq!(error, NvmeError::Admin { opcode, status });
        assert!(
            error
                .to_string()
                .ends_with("failed: Invalid Queue Size (SCT 0x1, SC 0x02, DNR)")
        );
    }
}

#[test]
fn a_device_may_go_at_any_moment() {
    let mut went = 0;
    for reads in 0.. {
        let (memory, mut device) = machine();
        device.quirk = Quirk::GoneAfter(reads);
        let device = device.share();
        match device.start() {
            Err(NvmeError::Gone { .. }) => went += 1,
            // CAP of all ones is absurd in itself.
            Err(NvmeError::BarTooSmall { stride: 15, .. }) => assert_eq!(reads, 1),
            Err(other) => panic!("after {reads}: {other}"),
            Ok(driver) => {
                device.0.borrow_mut().quirk = Quirk::GoneAfter(0);
                assert_eq!(driver.check(), Err(NvmeError::Gone { register: 0x1c }));
                assert!(driver.shutdown().is_err());
                break;
            }
        }
        assert_eq!(memory.given_back(), 0);
    }
    assert!(went > 10, "{went}");
}

#[test]
fn memory_comes_back_only_from_a_device_that_is_disabled() {
    let (memory, device) = machine();
    let device = device.share();
    let driver = device.start().unwrap();
    device.0.borrow_mut().quirk = Quirk::NeverDisabled;
    assert!(matches!(
        driver.shutdown(),
        Err(NvmeError::Timeout {
            waiting: Waiting::Disabled,
            ..
        })
    ));
    assert_eq!(memory.given_back(), 0);

    let (memory, device) = machine();
    let device = device.share();
    let driver = device.start().unwrap();
    device.0.borrow_mut().quirk = Quirk::NeverShutDown;
    assert!(matches!(
        driver.shutdown(),
        Err(NvmeError::Timeout {
            waiting: Waiting::ShutDown,
            ..
        })
    ));
    assert_eq!(memory.given_back(), 5);
}

#[test]
fn too_little_memory_is_an_error() {
    for pages in 0..5 {
        let (_, device) = machine();
        let started = device.share().start_with(pages).map(|_| ());
        assert_eq!(started, Err(NvmeError::NoMemory { pages: 1 }));
    }
    let (_, device) = machine();
    assert!(device.share().start_with(5).is_ok());
}

/// CMBLOC and CMBSZ of a buffer of 3 MiB at 2 MiB of BAR 2, with RDS and WDS.
const CMB: (u32, u32) = (2 << 12 | 2, 3 << 12 | 2 << 8 | 0b11000);

fn cmb(location: u32, size: u32) -> Result<Option<Cmb>, NvmeError> {
    let (_, mut device) = machine();
    device.cmb = (location, size);
    device.share().start().unwrap().cmb()
}

#[test]
fn a_memory_buffer_is_found_where_it_is() {
    let expected = Cmb {
        bar: 2,
        offset: 2 << 20,
        bytes: 3 << 20,
        lists: false,
        read_data: true,
        write_data: true,
    };
    assert_eq!(cmb(CMB.0, CMB.1), Ok(Some(expected)));
    assert_eq!(cmb(CMB.0, 0), Ok(None));
    let largest = cmb(0xffff_f005, 0xffff_f604).unwrap().unwrap();
    assert_eq!(largest.bytes, 0xf_ffff << 36);
    assert!(largest.offset.checked_add(largest.bytes).is_some());
    assert!(largest.lists && !largest.read_data);
    for (location, size) in [
        (1, CMB.1),            // BAR 1
        (6, CMB.1),            // BAR 6
        (2, 1 << 12 | 7 << 8), // units of 1 TiB
        (2, 0b11000),          // no units
        (u32::MAX, u32::MAX),
    ] {
        assert_eq!(cmb(location, size), Err(NvmeError::Cmb { location, size }));
    }
}

#[test]
fn a_memory_buffer_since_1_4_is_switched_on() {
    let with_buffer = || -> (Memory, Handle) {
        let (memory, mut device) = machine();
        device.cap |= 1 << 57;
        device.cmb = CMB;
        device.cmbmsc = 0x1234_5003; // someone placed it before
        (memory, device.share())
    };
    let (_memory, device) = with_buffer();
    let mut driver = device.start().unwrap();
    assert_eq!(device.0.borrow().cmbmsc, 1, "seen, and nowhere");
    assert_eq!(driver.cmb().unwrap().unwrap().bytes, 3 << 20);
    driver.place_cmb(0x40_0000_0000).unwrap();
    assert_eq!(device.0.borrow().cmbmsc, 0x40_0000_0003);
    for address in [0x1234, 1 << 63, !0xfff] {
        let refused = Err(NvmeError::CmbAddress { address });
        assert_eq!(driver.place_cmb(address), refused);
    }
    assert_eq!(
        device.0.borrow().cmbmsc & 2,
        0,
        "a refused address is taken back"
    );
    driver.shutdown().unwrap();
    assert_eq!(device.0.borrow().cmbmsc, 0);

    let (_, mut device) = machine();
    device.cmb = (0, 0);
    let mut driver = device.share().start().unwrap();
    let refused = Err(NvmeError::CmbAddress { address: 4096 });
    assert_eq!(driver.place_cmb(4096), refused);
}

#[test]
fn statuses_are_named() {
    let decode = |dword3| Status::from_dword3(dword3);
    assert_eq!(decode(0x0001_ffff), None, "identifier and phase tag");
    assert_eq!(decode(0x8000_0000), None, "success, whatever DNR says");
    let status = decode(1 << 31 | 1 << 30 | 2 << 25 | 0x81 << 17 | 1 << 16 | 7).unwrap();
    assert_eq!((status.code_type, status.code), (2, 0x81));
    assert!(status.do_not_retry && status.more);
    assert_eq!(
        status.to_string(),
        "Unrecovered Read Error (SCT 0x2, SC 0x81, DNR)"
    );
    let texts: Vec<_> = [7 << 25 | 1 << 17, 5 << 25]
        .into_iter()
        .filter_map(decode)
        .map(|status| status.to_string())
        .collect();
    assert_eq!(
        texts,
        [
            "Vendor Specific (SCT 0x7, SC 0x01)",
            "unknown status (SCT 0x5, SC 0x00)"
        ]
    );
}
