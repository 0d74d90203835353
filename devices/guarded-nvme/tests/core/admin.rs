// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Admin commands: the lists, all values of each field, and the lengths.

use address::Gpa;
use guarded_nvme::check::admin::{Answer, Filter, Outcome, Rules, Verdict, Victim, check};
use guarded_nvme::check::{NewCompletionQueue, NewSubmissionQueue};
use guarded_nvme::guest::Access;
use guarded_nvme::limits::{AdminState, Limits};
use guarded_nvme::spec::{Cdw, Entry, Status};
use guarded_nvme_testing::GuestRam;
use guarded_nvme_testing::core::{limits, namespaces, ram};

const ALL: u32 = u32::MAX;

/// An admin command.
#[derive(Clone, Copy, Debug, Default)]
struct Command {
    opcode: u8,
    nsid: u32,
    prp1: u64,
    dwords: [u32; 6],
}

impl Command {
    fn new(opcode: u8, dwords: [u32; 6]) -> Self {
        let (nsid, prp1) = (0, 0x1000);
        Self {
            opcode,
            nsid,
            prp1,
            dwords,
        }
    }

    fn of(self, nsid: u32) -> Self {
        Self { nsid, ..self }
    }

    fn at(self, prp1: u64) -> Self {
        Self { prp1, ..self }
    }

    /// Other fields of the entry are not 0, so that what is copied shows.
    fn entry(self) -> Entry {
        let pair = |at: usize| u64::from(self.dwords[at]) | u64::from(self.dwords[at + 1]) << 32;
        Entry::new([
            u64::from(self.opcode) | 0x3c00 | 0x7777 << 16 | u64::from(self.nsid) << 32,
            !0,
            !0,
            self.prp1,
            0x3000,
            pair(0),
            pair(2),
            pair(4),
        ])
    }
}

struct Bench {
    limits: Limits,
    state: AdminState,
    ram: GuestRam,
}

impl Bench {
    fn new() -> Self {
        Self {
            limits: limits(9),
            state: AdminState::default(),
            ram: ram(64),
        }
    }

    fn check(&self, command: Command) -> Verdict {
        self.check_entry(&command.entry())
    }

    fn check_entry(&self, entry: &Entry) -> Verdict {
        let namespaces = namespaces();
        let rules = Rules {
            limits: &self.limits,
            namespaces: &namespaces,
            state: &self.state,
        };
        check(entry, &rules, &self.ram)
    }

    #[track_caller]
    fn refuses(&self, command: Command, status: Status) {
        let expected = Verdict::Complete(Outcome::refusal(status));
        assert_eq!(self.check(command), expected, "{command:x?}");
    }
}

/// What reaches the device: its words but for the addresses, bytes, direction, filter.
#[track_caller]
fn bounced(verdict: Verdict) -> ([u64; 5], u32, Access, Filter) {
    let Verdict::Bounce(bounce, filter) = verdict else {
        panic!("not bounced: {verdict:?}");
    };
    let [first, a, b, prp1, prp2, rest @ ..] = bounce.command.words();
    assert_eq!([a, b, prp1, prp2], [0; 4]);
    let payload = bounce.payload;
    assert_eq!((payload.prp1, payload.prp2), (0x1000, 0x3000));
    let [x, y, z] = rest;
    ([first, x, y, z, 0], payload.bytes, payload.access, filter)
}

#[test]
fn opcodes_that_are_not_listed_are_refused() {
    let bench = Bench::new();
    let listed = [0, 1, 2, 4, 5, 6, 8, 9, 0xa, 0xc];
    for opcode in 0..=u8::MAX {
        let command = Command::new(opcode, [0; 6]);
        let expected = Verdict::Complete(Outcome::refusal(Status::INVALID_OPCODE));
        let is_refused = bench.check(command) == expected;
        assert_eq!(is_refused, !listed.contains(&opcode), "{opcode:#x}");
    }
    let mut bench = Bench::new();
    bench.limits.keep_alive = true;
    let verdict = bench.check(Command::new(0x18, [!0; 6]));
    let Verdict::Forward(command) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(command.words(), [0x18, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn fused_commands_and_sgls_are_refused() {
    let bench = Bench::new();
    for flag in [0x01, 0x02, 0x40, 0x80] {
        let mut words = [0; 8];
        words[0] = 6 | flag << 8;
        let expected = Verdict::Complete(Outcome::refusal(Status::INVALID_FIELD));
        assert_eq!(bench.check_entry(&Entry::new(words)), expected);
    }
}

#[test]
fn identify_has_its_structures_only() {
    let bench = Bench::new();
    for cns in 0..=u8::MAX {
        let command = Command::new(6, [u32::from(cns) | 0x5500, 0, 0, 0, 0, 0]).of(2);
        let filter = match cns {
            0 => Filter::Namespace,
            1 => Filter::Controller,
            3 => Filter::Descriptors,
            5 => Filter::SpecificNamespace,
            6 => Filter::SpecificController,
            8 => Filter::IndependentNamespace,
            2 | 0x1c => continue,
            _ => {
                bench.refuses(command, Status::INVALID_FIELD);
                continue;
            }
        };
        let nsid = if matches!(cns, 1 | 6) { 0 } else { 2 };
        let words = [6 | nsid << 32, cns.into(), 0, 0, 0];
        let expected = (words, 4096, Access::Write, filter);
        assert_eq!(bounced(bench.check(command)), expected);
    }
}

#[test]
fn identify_answers_for_namespaces_that_are_not_shown() {
    let bench = Bench::new();
    let identify = |cns: u32, cdw11: u32, nsid: u32| {
        bench.check(Command::new(6, [cns, cdw11, 0, 0, 0, 0]).of(nsid))
    };
    let answer = |verdict: Verdict| match verdict {
        Verdict::Answer(answer, payload) => {
            assert_eq!((payload.bytes, payload.access), (4096, Access::Write));
            answer
        }
        other => panic!("{other:?}"),
    };
    for cns in [0, 5, 8] {
        assert_eq!(answer(identify(cns, 0, 9)), Answer::InactiveNamespace);
    }
    assert_eq!(answer(identify(2, 0, 7)), Answer::ActiveNamespaces(7));
    assert_eq!(answer(identify(0x1c, 0, 0)), Answer::CommandSets);
    let refused = |status| Verdict::Complete(Outcome::refusal(status));
    assert_eq!(identify(3, 0, 9), refused(Status::INVALID_NAMESPACE));
    assert_eq!(identify(2, 0, ALL), refused(Status::INVALID_NAMESPACE));
    assert_eq!(identify(5, 2 << 24, 1), refused(Status::INVALID_FIELD));
    assert_eq!(identify(6, 2 << 24, 0), refused(Status::INVALID_FIELD));
}

#[test]
fn log_pages_are_listed() {
    let bench = Bench::new();
    let listed = [0, 1, 2, 3, 5, 6, 9, 0x12, 0x16];
    for page in 0..=u8::MAX {
        let command = Command::new(2, [u32::from(page) | 127 << 16 | 0x7f00, 0, 8, 0, 0, 0]);
        if page == 4 {
            let verdict = bench.check(command);
            assert!(matches!(
                verdict,
                Verdict::Answer(Answer::ChangedNamespaces(_), _)
            ));
        } else if listed.contains(&page) {
            let (words, bytes, access, filter) = bounced(bench.check(command));
            let group = 0;
            assert_eq!(words, [2, u64::from(page) | 127 << 16 | group, 8, 0, 0]);
            assert_eq!((bytes, access), (512, Access::Write));
            assert!(matches!(filter, Filter::Log(part) if part.page == page && part.offset == 8));
        } else {
            bench.refuses(command, Status::INVALID_LOG_PAGE);
        }
    }
}

#[test]
fn the_length_of_a_log_page_has_32_bits_and_a_limit() {
    let mut bench = Bench::new();
    let log = |bench: &Bench, low: u32, high: u32| {
        bench.check(Command::new(2, [2 | low << 16, high, 0, 0, 0, 0]))
    };
    let refused = Verdict::Complete(Outcome::refusal(Status::INVALID_FIELD));
    assert_eq!(bounced(log(&bench, 0x7fff, 0)).1, 128 << 10);
    assert_eq!(log(&bench, 0x8000, 0), refused);
    assert_eq!(log(&bench, 0xffff, 0xffff), refused, "2^32 dwords");
    assert_eq!(log(&bench, 0, 1), refused);
    bench.limits.mdts = 0;
    assert_eq!(bounced(log(&bench, 0x3ff, 0)).1, 4096);
    assert_eq!(log(&bench, 0x400, 0), refused);
    bench.limits.extended_logs = false;
    let (words, bytes, ..) = bounced(log(&bench, 0, 1));
    assert_eq!((words[1], bytes), (2, 4), "NUMDU is not offered");
}

#[test]
fn offsets_of_log_pages_are_in_dwords_of_this_command_set() {
    let bench = Bench::new();
    let log = |dwords: [u32; 6]| Command::new(2, dwords);
    bench.refuses(log([2, 0, 2, 0, 0, 0]), Status::INVALID_FIELD);
    bench.refuses(log([2, 0, 0, 0, 1 << 23, 0]), Status::INVALID_FIELD);
    bench.refuses(log([5, 0, 0, 0, 2 << 24, 0]), Status::INVALID_FIELD);
    bench.refuses(log([2, 0, 0, 0, 0, 0]).of(9), Status::INVALID_NAMESPACE);
    for nsid in [0, 1, ALL] {
        bounced(bench.check(log([2, 0, 0, 0, 0, 0]).of(nsid)));
    }
    let (words, ..) = bounced(bench.check(log([9, 5 << 16, 0, 0, 0, 0])));
    assert_eq!(words[1], 9 | 5 << 48, "the endurance group");
}

#[test]
fn features_are_listed_with_their_lengths() {
    let bench = Bench::new();
    for feature in 0..=u8::MAX {
        let set = bench.check(Command::new(9, [feature.into(), 0, !0, !0, !0, !0]));
        let get = bench.check(Command::new(0xa, [feature.into(), 0, !0, !0, !0, !0]));
        match feature {
            1 | 2 | 4 | 5 | 6 | 8 | 9 | 0xa | 0xf | 0x10 | 0x11 => {
                for (opcode, verdict) in [(9, set), (0xa, get)] {
                    let Verdict::Forward(command) = verdict else {
                        panic!("{feature:#x}: {verdict:?}");
                    };
                    let expected = [opcode, 0, 0, 0, 0, feature.into(), 0, 0];
                    assert_eq!(command.words(), expected);
                }
            }
            7 => {
                let expected = Verdict::Complete(Outcome::success(0x7_0007));
                assert_eq!([set, get], [expected; 2]);
            }
            0xb => assert!(matches!(set, Verdict::SetEvents(_, 0))),
            0xd => {
                let refused = Verdict::Complete(Outcome::refusal(Status::INVALID_FIELD));
                assert_eq!(set, refused);
                assert!(matches!(get, Verdict::Answer(Answer::HostMemoryOff, _)));
            }
            0xe | 0x16 | 0x81 => {
                let bytes = if feature == 0x16 { 512 } else { 8 };
                assert_eq!((bounced(set).1, bounced(set).2), (bytes, Access::Read));
                assert_eq!((bounced(get).1, bounced(get).2), (bytes, Access::Write));
            }
            _ => {
                let refused = Verdict::Complete(Outcome::refusal(Status::INVALID_FIELD));
                assert_eq!([set, get], [refused; 2], "{feature:#x}");
            }
        }
    }
    let extended = bench.check(Command::new(9, [0x81, 1, 0, 0, 0, 0]));
    assert_eq!(bounced(extended).1, 16);
}

#[test]
fn features_are_not_saved_and_their_capabilities_have_no_data() {
    let bench = Bench::new();
    bench.refuses(
        Command::new(9, [1 | 1 << 31, 0, 0, 0, 0, 0]),
        Status::NOT_SAVEABLE,
    );
    for feature in [0xe, 0x16, 0x81] {
        let verdict = bench.check(Command::new(0xa, [feature | 3 << 8, 0, 0, 0, 0, 0]));
        assert!(matches!(verdict, Verdict::Forward(_)), "{feature:#x}");
    }
    for feature in [7, 0xb] {
        let verdict = bench.check(Command::new(0xa, [feature | 3 << 8, 0, 0, 0, 0, 0]));
        assert_eq!(verdict, Verdict::Complete(Outcome::success(4)));
    }
    bench.refuses(
        Command::new(0xa, [1 | 4 << 8, 0, 0, 0, 0, 0]),
        Status::INVALID_FIELD,
    );
    bench.refuses(
        Command::new(9, [1, 0, 0, 0, 0, 0]).of(8),
        Status::INVALID_NAMESPACE,
    );
    bench.refuses(Command::new(9, [9, 9, 0, 0, 0, 0]), Status::INVALID_FIELD);
    assert!(matches!(
        bench.check(Command::new(9, [9, 8, 0, 0, 0, 0])),
        Verdict::Forward(_)
    ));
}

#[test]
fn the_number_of_queues_is_the_monitors_and_fixed_once_there_is_one() {
    let mut bench = Bench::new();
    let set = |value| Command::new(9, [7, value, 0, 0, 0, 0]);
    bench.refuses(set(0xffff), Status::INVALID_FIELD);
    bench.refuses(set(0xffff_0000), Status::INVALID_FIELD);
    bench.state.completion_queues.insert(1);
    bench.refuses(set(3), Status::SEQUENCE_ERROR);
}

#[test]
fn the_device_reports_changes_of_namespaces_whatever_the_guest_wants() {
    let mut bench = Bench::new();
    let verdict = bench.check(Command::new(9, [0xb, 0xffff_fc03, 0, 0, 0, 0]));
    let Verdict::SetEvents(command, events) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!((command.entry().cdw(Cdw::D11), events), (0x103, 0x03));
    bench.state.events = 0x203;
    let get = bench.check(Command::new(0xa, [0xb, 0, 0, 0, 0, 0]));
    assert_eq!(get, Verdict::Complete(Outcome::success(0x203)));
}

#[test]
fn completion_queues_are_checked() {
    let mut bench = Bench::new();
    let create =
        |id: u32, last: u32, cdw11: u32| Command::new(5, [id | last << 16, cdw11, 0, 0, 0, 0]);
    let made = bench.check(create(8, 255, 3 | 8 << 16));
    let expected = NewCompletionQueue {
        id: 8,
        size: 256,
        base: Gpa(0x1000),
        vector: Some(8),
    };
    assert_eq!(made, Verdict::CreateCompletionQueue(expected));
    let polled = bench.check(create(1, 1, 1 | 99 << 16));
    assert!(matches!(polled, Verdict::CreateCompletionQueue(new) if new.vector.is_none()));
    for (command, status) in [
        (create(0, 1, 1), Status::INVALID_QUEUE_ID),
        (create(9, 1, 1), Status::INVALID_QUEUE_ID),
        (create(1, 0, 1), Status::INVALID_QUEUE_SIZE),
        (create(1, 256, 1), Status::INVALID_QUEUE_SIZE),
        (create(1, 1, 1).at(0x1008), Status::INVALID_PRP_OFFSET),
        (create(1, 1, 0), Status::INVALID_FIELD),
        (create(1, 1, 1).at(0x7000), Status::INVALID_FIELD),
        (create(1, 1, 1).at(0xb000), Status::INVALID_FIELD),
        (create(1, 1, 1).at(!0xfff), Status::INVALID_FIELD),
        (create(1, 1, 3 | 9 << 16), Status::INVALID_VECTOR),
    ] {
        bench.refuses(command, status);
    }
    bench.state.completion_queues.insert(1);
    bench.refuses(create(1, 1, 1), Status::INVALID_QUEUE_ID);
}

#[test]
fn submission_queues_are_checked() {
    let mut bench = Bench::new();
    let create =
        |id: u32, last: u32, cdw11: u32| Command::new(1, [id | last << 16, cdw11, !0, 0, 0, 0]);
    bench.refuses(create(1, 1, 1 | 1 << 16), Status::INVALID_COMPLETION_QUEUE);
    bench.refuses(create(1, 1, 1), Status::INVALID_COMPLETION_QUEUE);
    bench.state.completion_queues.insert(2);
    bench.refuses(create(1, 1, 1 | 2 << 16), Status::INVALID_COMPLETION_QUEUE);
    bench.state.live_completion_queues.insert(2);
    let made = bench.check(create(3, 255, 7 | 2 << 16));
    let expected = NewSubmissionQueue {
        id: 3,
        size: 256,
        base: Gpa(0x1000),
        completion_queue: 2,
    };
    assert_eq!(made, Verdict::CreateSubmissionQueue(expected));
    let last_page_missing = create(1, 255, 1 | 2 << 16).at(0x4000);
    bench.refuses(last_page_missing, Status::INVALID_FIELD);
    assert!(matches!(
        bench.check(create(1, 63, 1 | 2 << 16).at(0xb000)),
        Verdict::CreateSubmissionQueue(_)
    ));
    bench.state.submission_queues.insert(3);
    bench.refuses(create(3, 1, 1 | 2 << 16), Status::INVALID_QUEUE_ID);
}

#[test]
fn queues_that_are_used_are_not_deleted() {
    let mut bench = Bench::new();
    let delete = |opcode, id| Command::new(opcode, [id, 0, 0, 0, 0, 0]);
    for (opcode, id) in [(0, 0), (0, 1), (4, 0), (4, 1), (0, 0xffff)] {
        bench.refuses(delete(opcode, id), Status::INVALID_QUEUE_ID);
    }
    bench.state.completion_queues.insert(1);
    bench.state.submission_queues.insert(2);
    for opcode in [0, 4] {
        let id = if opcode == 0 { 2 } else { 1 };
        bench.refuses(delete(opcode, id), Status::INVALID_QUEUE_ID);
    }
    bench.state.live_completion_queues.insert(1);
    bench.state.live_submission_queues.insert(2);
    bench.state.used_queues.insert(1);
    bench.refuses(delete(4, 1), Status::INVALID_QUEUE_DELETION);
    assert_eq!(bench.check(delete(0, 2)), Verdict::DeleteSubmissionQueue(2));
    bench.state.used_queues.remove(1);
    assert_eq!(bench.check(delete(4, 1)), Verdict::DeleteCompletionQueue(1));
}

#[test]
fn aborts_and_event_requests_stay_with_the_monitor() {
    let mut bench = Bench::new();
    let abort = bench.check(Command::new(8, [0x1234_0005, 0, 0, 0, 0, 0]));
    let (queue, cid) = (5, 0x1234);
    assert_eq!(abort, Verdict::Abort(Victim { queue, cid }));
    let request = Command::new(0xc, [0; 6]);
    bench.state.open_events = 3;
    assert_eq!(bench.check(request), Verdict::AwaitEvent);
    bench.state.open_events = 4;
    bench.refuses(request, Status::EVENT_LIMIT);
}
