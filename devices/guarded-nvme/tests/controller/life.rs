// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The beginning and the end of a controller, and devices that do not do as they should.

use std::time::Duration;

use address::Gpa;
use guarded_nvme::controller::{AttachError, Config, Controller};
use guarded_nvme::fault::{Fault, Unsuitable};
use guarded_nvme::spec::Status;
use guarded_nvme_testing::{
    Driver, GuestMachine, GuestRam, Io, Misbehaviour, Model, Personality, Physical, Rig,
};

fn rig(personality: Personality) -> Rig {
    Rig::new(GuestRam::plain(1024), personality, 7).unwrap()
}

/// A controller with a queue, and commands that the device has.
pub fn busy() -> (Rig, Driver) {
    let mut rig = rig(Personality::default());
    let mut driver = Driver::new();
    assert!(driver.enable(&mut rig), "{:?}", rig.controller.fault());
    assert_eq!(driver.create_queues(&mut rig, 1, 16), Status::SUCCESS);
    let pages: Vec<Gpa> = (0..5).map(|_| driver.page()).collect();
    let io = Io {
        opcode: 2,
        nsid: 2,
        lba: 1,
        count: 5,
        pages,
        offset: 0,
    };
    for _ in 0..8 {
        let words = driver.io(&rig, &io);
        driver.put(&rig, 1, words);
    }
    driver.ring(&mut rig, 1);
    rig.service();
    (rig, driver)
}

pub fn misbehave(rig: &Rig, change: impl FnOnce(&mut Misbehaviour)) {
    let mut misbehaviour = Misbehaviour::default();
    change(&mut misbehaviour);
    rig.model.misbehave(misbehaviour);
}

/// The time that a device has, and more.
const LATE: Duration = Duration::from_secs(100);

#[test]
fn only_the_offered_configuration_enables() {
    for (value, name) in [
        (0x0046_0081, "CC"),
        (0x0046_0801, "CC"),
        (0x0047_0001, "CC"),
        (0x0056_0001, "CC"),
        (0x0046_0011, "CC"),
        (0x0146_0001, "CC"),
        (0x0000_0001, "CC"),
    ] {
        let mut rig = rig(Personality::default());
        rig.set_admin_queues(Gpa(0), Gpa(0x1000), 16);
        rig.configure(value);
        rig.run(20);
        let fault = rig.controller.fault().expect("a fault");
        assert!(matches!(fault, Fault::Configuration { register, .. } if register == name));
        assert!(rig.is_fatal() && !rig.is_ready());
        assert_eq!(rig.model.register(0x14), 0, "the device is not touched");
        assert!(!rig.model.is_bus_master());
        rig.configure(0);
        rig.run(2);
        assert!(!rig.is_fatal());
    }
}

#[test]
fn admin_queues_have_to_be_memory() {
    for (submission, completion, size, name) in [
        (0, 0x1000, 1, "AQA"),
        (1 << 40, 0x1000, 16, "ASQ"),
        (0, 1 << 40, 16, "ACQ"),
        (1023 * 4096, 0x1000, 128, "ASQ"),
        (0, 1023 * 4096, 512, "ACQ"),
        (!0xfff, 0x1000, 128, "ASQ"),
    ] {
        let mut rig = rig(Personality::default());
        rig.set_admin_queues(Gpa(submission), Gpa(completion), size);
        rig.configure(0x0046_0001);
        rig.run(20);
        let fault = rig.controller.fault().expect("a fault");
        assert!(
            matches!(fault, Fault::Configuration { register, .. } if register == name),
            "{fault}"
        );
    }
}

#[test]
fn a_controller_that_is_disabled_under_load_starts_again() {
    for rounds in 0..6 {
        let (mut rig, mut driver) = busy();
        rig.run(rounds);
        assert!(driver.disable(&mut rig));
        assert!(driver.enable(&mut rig));
        assert_eq!(driver.create_queues(&mut rig, 1, 16), Status::SUCCESS);
        let flush = [2 << 32, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(driver.execute(&mut rig, 1, flush).status, Status::SUCCESS);
        assert_eq!(driver.poll(&mut rig, 1), None, "nothing of before");
    }
}

#[test]
fn ready_is_not_shown_before_the_device_has_stopped() {
    let (mut rig, _) = busy();
    misbehave(&rig, |device| device.never_stops = true);
    rig.configure(0);
    assert!(rig.run_until(|rig| rig.model.register(0x14) == 0));
    rig.run(50);
    assert!(rig.is_ready(), "the device still runs");
    rig.sleep(LATE);
    rig.run(2);
    assert!(!rig.is_ready(), "it was reset");
    assert!(!rig.is_fatal());
}

#[test]
fn a_guest_that_disables_and_enables_at_once_gets_a_new_controller() {
    let (mut rig, _) = busy();
    rig.configure(0);
    rig.configure(0x0046_0001);
    assert!(rig.run_until(|rig| !rig.is_ready()));
    assert!(rig.run_until(Rig::is_ready));
    assert_eq!(rig.model.submission_queues(), [0; 0]);
}

#[test]
fn a_guest_that_gives_up_early_waits_for_the_device() {
    let mut rig = rig(Personality::default());
    rig.set_admin_queues(Gpa(0), Gpa(0x1000), 16);
    rig.configure(0x0046_0001);
    rig.service();
    assert_eq!(rig.model.register(0x14), 0x0046_0001);
    rig.configure(0);
    rig.service();
    assert_eq!(rig.model.register(0x14), 0x0046_0001, "not before RDY");
    assert!(rig.run_until(|rig| rig.model.register(0x14) == 0));
    rig.run(20);
    assert!(!rig.model.is_bus_master());
}

#[test]
fn a_device_that_is_never_ready_is_reset() {
    let mut rig = rig(Personality::default());
    misbehave(&rig, |device| device.never_ready = true);
    rig.set_admin_queues(Gpa(0), Gpa(0x1000), 16);
    rig.configure(0x0046_0001);
    rig.run(20);
    assert!(!rig.is_fatal());
    rig.sleep(LATE);
    rig.run(2);
    assert_eq!(rig.controller.fault(), Some(Fault::NotReady(15_000)));
    assert!(rig.is_fatal());
    misbehave(&rig, |_| {});
    assert_eq!(rig.model.resets(), 0);
    rig.configure(0);
    rig.run(5);
    assert!(!rig.is_fatal());
    assert_eq!(rig.model.resets(), 1, "RDY = 0 says nothing");
    let mut driver = Driver::new();
    assert!(driver.enable(&mut rig));
}

#[test]
fn a_device_that_does_not_answer_the_monitor_fails() {
    let mut rig = rig(Personality::default());
    misbehave(&rig, |device| device.silent = true);
    rig.set_admin_queues(Gpa(0), Gpa(0x1000), 16);
    rig.configure(0x0046_0001);
    rig.run(20);
    rig.sleep(LATE);
    rig.run(2);
    assert_eq!(
        rig.controller.fault(),
        Some(Fault::NoAnswer("Identify Controller"))
    );
}

#[test]
fn fatal_and_lost_devices_are_shown_as_such() {
    for fault in [Fault::Gone, Fault::Fatal] {
        let (mut rig, mut driver) = busy();
        misbehave(&rig, |device| {
            device.gone = fault == Fault::Gone;
            device.fatal = fault == Fault::Fatal;
        });
        rig.sleep(Duration::from_secs(1));
        rig.service();
        assert!(rig.is_fatal());
        assert_eq!(rig.controller.fault(), Some(fault));
        misbehave(&rig, |_| {});
        assert!(driver.disable(&mut rig));
        assert!(driver.enable(&mut rig), "after a reset");
    }
}

#[test]
fn completions_of_nothing_end_the_controller() {
    for words in [[0, 99 << 32], [0, 1 << 16 | 9 << 32], [0, 1 << 16 | 0xffff]] {
        let (mut rig, mut driver) = busy();
        rig.model.forge_completion(1, words);
        rig.service();
        assert!(rig.is_fatal(), "{words:x?}");
        assert_eq!(rig.model.register(0x14), 0, "it is stopped at once");
        assert!(driver.disable(&mut rig));
        assert!(driver.enable(&mut rig));
    }
}

#[test]
fn a_completion_in_another_queue_is_of_nothing() {
    let (mut rig, mut driver) = busy();
    assert_eq!(driver.create_queues(&mut rig, 2, 16), Status::SUCCESS);
    misbehave(&rig, |device| device.holds_io = true);
    rig.model.forge_completion(2, [0, 1 << 16]);
    rig.service();
    assert!(matches!(
        rig.controller.fault(),
        Some(Fault::UnknownCommand {
            queue: 2,
            from: 1,
            ..
        })
    ));
}

#[test]
fn doorbells_of_before_are_forgotten() {
    let (mut rig, mut driver) = busy();
    assert!(driver.disable(&mut rig));
    for queue in 0..=4 {
        rig.ring(guarded_nvme::guest::Doorbell::tail(queue), 3);
        rig.ring(guarded_nvme::guest::Doorbell::head(queue), 3);
    }
    assert!(driver.enable(&mut rig));
    rig.run(20);
    assert_eq!(driver.poll(&mut rig, 0), None);
}

#[test]
fn a_device_that_can_be_neither_stopped_nor_reset_keeps_all_memory() {
    let (mut rig, _) = busy();
    let physical = rig.ram().physical().clone();
    let pages = physical.monitor_pages();
    misbehave(&rig, |device| {
        device.never_stops = true;
        device.no_reset = true;
    });
    rig.configure(0);
    assert!(rig.run_until(|rig| rig.model.register(0x14) == 0));
    rig.sleep(LATE);
    rig.run(2);
    assert!(rig.is_fatal() && rig.is_ready(), "dead, and not stopped");
    assert!(!rig.model.is_bus_master());
    rig.configure(0x0046_0001);
    rig.run(5);
    assert!(rig.is_fatal());
    let Rig {
        controller, model, ..
    } = rig;
    assert!(controller.detach().is_err());
    assert_eq!(physical.monitor_pages(), pages);
    model.steps(100);
}

#[test]
fn a_controller_that_is_dropped_under_load_keeps_all_memory() {
    let (rig, _) = busy();
    let physical = rig.ram().physical().clone();
    let pages = physical.monitor_pages();
    let Rig {
        controller, model, ..
    } = rig;
    drop(controller);
    assert_eq!(physical.monitor_pages(), pages);
    model.steps(100);
}

#[test]
fn a_function_reset_stops_everything() {
    let (mut rig, mut driver) = busy();
    rig.run(3);
    rig.reset().unwrap();
    assert!(!rig.is_ready());
    assert_eq!(rig.read(0x24), 0, "AQA");
    assert!(!rig.model.is_bus_master());
    assert!(driver.enable(&mut rig));
    misbehave(&rig, |device| device.no_reset = true);
    assert!(rig.reset().is_err());
    assert!(rig.is_fatal());
    misbehave(&rig, |_| {});
    rig.reset().unwrap();
    assert!(!rig.is_fatal());
    assert!(driver.enable(&mut rig));
}

fn attach(personality: Personality, prepare: impl FnOnce(&Model)) -> Result<Rig, AttachError> {
    let ram = GuestRam::plain(16);
    let model = Model::new(ram.physical().clone(), personality, 1);
    prepare(&model);
    let machine = GuestMachine::new(ram);
    let config = Config {
        queues: 2,
        vectors: 3,
        mdts: 5,
    };
    let controller = Controller::attach(model.device(), machine.clone(), config)?;
    let layout = guarded_nvme::registers::Layout::new(4096, 2, 3).unwrap();
    let registers = guarded_nvme::registers::Registers::new(controller.identity(), layout);
    Ok(Rig::of(machine, model, registers, controller))
}

#[test]
fn what_survives_resets_is_closed_when_a_device_is_attached() {
    let rig = attach(Personality::rich(), |model| {
        for register in [0x50, 0x54, 0xe00, 0xe14, 0xe18] {
            model.set_register(register, 0xffff_ffff);
        }
    });
    let rig = rig.unwrap();
    for register in [0x50, 0x54, 0xe00, 0xe14, 0xe18] {
        assert_eq!(rig.model.register(register), 0, "{register:#x}");
    }
}

#[test]
fn a_device_that_runs_is_stopped_before_it_is_attached() {
    let rig = attach(Personality::default(), |model| {
        model.set_register(0x14, 0x0046_0001);
    });
    assert_eq!(rig.unwrap().model.register(0x14), 0);
    let found = attach(Personality::default(), |model| {
        model.set_register(0x14, 0x0046_0001);
        model.misbehave(Misbehaviour {
            no_reset: true,
            ..Misbehaviour::default()
        });
    });
    assert!(matches!(found, Err(AttachError::Running(_))));
}

#[test]
fn devices_that_cannot_be_guarded_are_refused() {
    let with = |change: fn(&mut Personality)| {
        let mut personality = Personality::default();
        change(&mut personality);
        match attach(personality, |_| {}) {
            Err(AttachError::Unsuitable(unsuitable)) => unsuitable,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        with(|device| device.cap |= 1 << 48),
        Unsuitable::PageSize(13)
    );
    assert!(matches!(
        with(|device| device.cap &= !(1 << 37)),
        Unsuitable::NoNvm(_)
    ));
    assert_eq!(
        with(|device| device.version = 0x1_0000),
        Unsuitable::Version(0x1_0000)
    );
    assert!(matches!(
        with(|device| device.last_entry = 0),
        Unsuitable::QueueSize(_)
    ));
    assert_eq!(with(|device| device.cap = u64::MAX), Unsuitable::Gone);
}

#[test]
fn subsystems_with_other_controllers_are_refused() {
    let enable = |controllers: Option<Vec<u16>>| {
        let personality = Personality {
            controllers,
            cmic: 2,
            ..Personality::default()
        };
        let mut rig = rig(personality);
        Driver::new().enable(&mut rig);
        rig.controller.fault()
    };
    assert_eq!(enable(Some(vec![7])), None, "CMIC alone proves nothing");
    let shared = Fault::Unsuitable(Unsuitable::SharedSubsystem(8));
    assert_eq!(enable(Some(vec![7, 8])), Some(shared));
    let unknown = Fault::Unsuitable(Unsuitable::UnknownSubsystem(Status::INVALID_FIELD));
    assert_eq!(enable(None), Some(unknown));
}

#[test]
fn queues_are_short_where_memory_is_in_pieces() {
    let last = |contiguous: Option<usize>| {
        let physical = Physical::default();
        physical.scatter(true);
        match contiguous {
            Some(blocks) => physical.limit_contiguous(blocks),
            None => physical.falsify(),
        }
        let ram = GuestRam::new(physical, 1024, |_| Some(true));
        let mut rig = Rig::new(ram, Personality::default(), 3).unwrap();
        let last = rig.read(0) & 0xffff;
        let mut driver = Driver::new();
        assert!(driver.enable(&mut rig));
        let size = u16::try_from(last + 1).unwrap();
        assert_eq!(driver.create_queues(&mut rig, 1, size), Status::SUCCESS);
        let over = driver.create_queues(&mut rig, 2, size + 1);
        assert_eq!(over.code(), (1, 2));
        last
    };
    assert_eq!(last(Some(4)), 255);
    assert_eq!(last(Some(3)), 63);
    assert_eq!(last(Some(0)), 63);
    assert_eq!(last(None), 63, "blocks that are not what they should be");
}

#[test]
fn a_device_with_little_shows_little() {
    let personality = Personality {
        last_entry: 15,
        mdts: 2,
        queues: 2,
        aerl: 0,
        ..Personality::default()
    };
    let mut rig = rig(personality);
    assert_eq!(rig.read(0) & 0xffff, 15);
    let mut driver = Driver::new();
    assert!(driver.enable(&mut rig));
    let identify = driver.identify(&mut rig, 1, 0);
    assert_eq!((identify[77], identify[259]), (2, 0), "MDTS, AERL");
    assert_eq!(driver.admin(&mut rig, 9, [7, 0x7_0007]).result, 0x1_0001);
    assert_eq!(driver.create_queues(&mut rig, 1, 16), Status::SUCCESS);
    assert_eq!(driver.create_queues(&mut rig, 3, 16).code(), (1, 1));
}

#[test]
fn no_limit_of_transfers_is_never_shown() {
    let config = Config {
        queues: 1,
        vectors: 2,
        mdts: 0,
    };
    let ram = GuestRam::plain(1024);
    let mut rig = Rig::with(ram, Personality::default(), config, 1).unwrap();
    let mut driver = Driver::new();
    assert!(driver.enable(&mut rig));
    let identify = driver.identify(&mut rig, 1, 0);
    assert_eq!(identify[77], 1, "MDTS 0 would say that there is none");
}

#[test]
fn a_config_tells_how_much_memory_is_taken() {
    for (queues, mdts) in [(1, 9), (4, 9), (3, 0), (0, 5), (200, 12)] {
        let config = Config {
            queues,
            vectors: 5,
            mdts,
        };
        let rig = Rig::with(GuestRam::plain(64), Personality::default(), config, 7).unwrap();
        let taken = rig.ram().physical().monitor_pages();
        assert_eq!(taken, config.pages(), "{config:?}");
    }
}

#[test]
fn a_device_is_quiet_only_when_it_was_seen_to_stop() {
    let (mut rig, _) = busy();
    assert!(!rig.controller.is_quiet());
    rig.configure(0x0046_0000);
    rig.service();
    assert!(!rig.controller.is_quiet(), "RDY is still 1");
    assert!(rig.run_until(|rig| rig.controller.is_quiet()));
    rig.service();
    assert!(!rig.is_ready(), "shown with the next call");
}
