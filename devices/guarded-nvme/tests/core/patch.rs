// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest sees of a device that has everything.

use guarded_nvme::check::Filter;
use guarded_nvme::check::admin::LogPart;
use guarded_nvme::limits::Limits;
use guarded_nvme::patch::apply;
use guarded_nvme_testing::core::limits;

/// A page of ones as the filter leaves it.
fn ones(filter: Filter, limits: &Limits) -> [u8; 4096] {
    let mut data = [0xff; 4096];
    apply(filter, limits, 0, &mut data);
    data
}

fn word(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(data[at..at + 4].try_into().unwrap())
}

/// The first bytes of each run that is not zero, and their ends.
fn runs(data: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (at, byte) in data.iter().enumerate() {
        match runs.last_mut() {
            _ if *byte == 0 => {}
            Some((_, end)) if *end == at => *end = at + 1,
            _ => runs.push((at, at + 1)),
        }
    }
    runs
}

#[test]
fn a_controller_offers_what_the_monitor_serves() {
    let limits = limits(7);
    let data = ones(Filter::Controller, &limits);
    assert_eq!(data[76], 0, "CMIC");
    assert_eq!(data[77], 7, "MDTS");
    assert_eq!(word(&data, 80), 0x0002_0200, "VER");
    assert_eq!(word(&data, 92), 0x300, "OAES");
    assert_eq!(word(&data, 96), 0x43, "CTRATT");
    assert_eq!(data[100..111], [0; 11], "RRLS and boot partitions");
    assert_eq!(data[240..258], [0; 18], "NVMe-MI, OACS");
    assert_eq!(data[259], 3, "AERL");
    assert_eq!(data[261], 7, "LPA");
    assert_eq!(data[264..266], [0; 2], "AVSCC, APSTA");
    assert_eq!(data[272..280], [0; 8], "HMPRE, HMMIN");
    assert_eq!(data[312..320], [0; 8], "RPMBS, EDSTT, DSTO, FWUG");
    assert_eq!(data[322..340], [0; 18], "HCTMA to HMMAXD, NSETIDMAX");
    assert_eq!(data[342..512], [0; 170], "ANA to CQT");
    assert_eq!(data[512..514], [0x66, 0x44], "SQES, CQES");
    assert_eq!(word(&data, 514) & 0xffff, 256, "MAXCMD");
    assert_eq!(word(&data, 516), !0, "NN");
    assert_eq!(word(&data, 520), 0xcd, "ONCS, FUSES");
    assert_eq!(data[524], 0, "FNA");
    assert_eq!(data[530..540], [0; 10], "NVSCC to SGLS");
    assert_eq!(data[544..768], [0; 224]);
    assert_eq!(data[1024..2048], [0; 1024], "fabrics");
    assert_eq!(data[3072..], [0; 1024], "vendor");
    assert_eq!(data[4..64], [0xff; 60], "serial number and model");
}

#[test]
fn what_a_device_has_not_is_not_offered() {
    let mut data = [0; 4096];
    apply(Filter::Controller, &limits(9), 0, &mut data);
    for (at, name) in [
        (80, "VER"),
        (92, "OAES"),
        (96, "CTRATT"),
        (514, "MAXCMD"),
        (520, "ONCS"),
    ] {
        assert_eq!(data[at], 0, "{name}");
    }
    assert_eq!(data[261], 0, "LPA");
}

#[test]
fn structures_of_namespaces_have_listed_fields_only() {
    let limits = limits(9);
    let expected = [(0, 30), (32, 74), (82, 83), (99, 384)];
    assert_eq!(runs(&ones(Filter::Namespace, &limits)), expected);
    assert_eq!(runs(&ones(Filter::SpecificNamespace, &limits)), [(0, 268)]);
    assert_eq!(runs(&ones(Filter::SpecificController, &limits)), [(0, 16)]);
    let expected = [(0, 1), (3, 4), (8, 15)];
    assert_eq!(runs(&ones(Filter::IndependentNamespace, &limits)), expected);
    assert_eq!(runs(&ones(Filter::HostBehavior, &limits)), [(0, 1)]);
}

/// The dwords that are left of a page of ones.
fn dwords(page: u8, offset: u64) -> Vec<u64> {
    let retain = false;
    let part = LogPart {
        page,
        offset,
        retain,
    };
    let data = ones(Filter::Log(part), &limits(9));
    let is_left = |at: &usize| word(&data, 4 * at) != 0;
    (0..1024)
        .filter(is_left)
        .map(|at| at as u64 + offset / 4)
        .collect()
}

#[test]
fn logs_of_commands_features_and_pages_show_what_is_allowed() {
    assert_eq!(dwords(0, 0), [0, 1, 2, 3, 4, 5, 6, 9, 0x12, 0x16]);
    let admin = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12];
    let io = [256, 257, 258, 261, 264, 265, 268];
    assert_eq!(dwords(5, 0), [&admin[..], &io].concat());
    let features = [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15, 16, 17, 0x16, 0x81];
    assert_eq!(dwords(0x12, 0), features);
}

#[test]
fn an_offset_moves_what_is_left() {
    assert_eq!(dwords(5, 1024), [256, 257, 258, 261, 264, 265, 268]);
    assert_eq!(dwords(0, 36), [9, 0x12, 0x16]);
    assert_eq!(dwords(2, 224), [56, 57]);
    assert_eq!(dwords(2, u64::MAX - 3), [0; 0]);
    assert_eq!(dwords(1, 24)[..2], [6, 16], "entries of the error log");
}

#[test]
fn the_error_log_names_no_command_of_the_monitors() {
    let part = LogPart {
        page: 1,
        offset: 0,
        retain: false,
    };
    let mut data = [0x11; 4096];
    apply(Filter::Log(part), &limits(9), 0, &mut data);
    let entry = &data[64..128];
    assert_eq!(entry[8..12], [0x11, 0x11, 0xff, 0xff], "SQID, CID");
    assert_eq!(entry[12..28], [0x11; 16]);
    assert_eq!(
        entry[28..],
        [0; 36],
        "vendor's, transport's and the command's own"
    );
}

#[test]
fn pages_end_where_the_specification_ends_them() {
    assert_eq!(dwords(2, 0).len(), 58);
    assert_eq!(dwords(3, 0).len(), 16);
    assert_eq!(dwords(6, 0).len(), 141);
    assert_eq!(dwords(9, 0).len(), 128);
    assert_eq!(dwords(0x16, 0).len(), 128);
    assert_eq!(dwords(7, 0).len(), 0);
}
