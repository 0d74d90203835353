// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a device has when it is disabled: nothing, or what it does not complete in time.

use std::time::Duration;

use guarded_nvme::spec::Status;

use super::life::{busy, misbehave};

const CC: u32 = 0x14;
const ENABLED: u32 = 0x0046_0001;
/// Time in which a device has to be disabled that completes nothing.
const SOON: Duration = Duration::from_secs(2);

#[test]
fn commands_are_completed_before_the_device_is_disabled() {
    let (mut rig, mut driver) = busy();
    misbehave(&rig, |device| device.holds_io = true);
    rig.configure(0);
    rig.run(50);
    assert_eq!(rig.model.register(CC), ENABLED, "disabled under load");
    assert!(rig.is_ready());
    misbehave(&rig, |_| {});
    assert!(rig.run_until(|rig| rig.model.register(CC) == 0));
    assert_eq!(rig.model.outstanding(1), 0);
    assert!(rig.run_until(|rig| !rig.is_ready()));
    for _ in 0..8 {
        let done = driver.poll(&mut rig, 1).expect("a completion");
        assert_eq!(done.status, Status::SUCCESS);
    }
    assert!(driver.enable(&mut rig));
}

#[test]
fn admin_commands_are_completed_too() {
    let (mut rig, mut driver) = busy();
    misbehave(&rig, |device| {
        device.holds_io = true;
        device.holds_aborts = true;
    });
    let victim = driver.submit(&mut rig, 1, [2 << 32, 0, 0, 0, 0, 0, 0, 0]);
    rig.run(20);
    let abort = 1 | u64::from(victim) << 16;
    driver.submit(&mut rig, 0, [8, 0, 0, 0, 0, abort, 0, 0]);
    rig.run(20);
    misbehave(&rig, |device| device.holds_aborts = true);
    assert!(rig.run_until(|rig| rig.model.outstanding(1) == 0));
    rig.configure(0);
    rig.run(50);
    assert_eq!(rig.model.register(CC), ENABLED, "an Abort is outstanding");
    misbehave(&rig, |_| {});
    assert!(rig.run_until(|rig| !rig.is_ready()));
}

#[test]
fn a_device_that_completes_nothing_is_disabled_all_the_same() {
    let (mut rig, mut driver) = busy();
    misbehave(&rig, |device| device.holds_io = true);
    rig.configure(0);
    rig.run(50);
    rig.sleep(SOON);
    rig.run(1);
    assert_eq!(rig.model.register(CC), 0);
    assert!(rig.run_until(|rig| !rig.is_ready()));
    assert_eq!(rig.model.resets(), 0, "it stops by itself");
    misbehave(&rig, |_| {});
    assert!(driver.enable(&mut rig));
}

#[test]
fn nothing_is_submitted_once_the_guest_has_disabled_its_controller() {
    let (mut rig, mut driver) = busy();
    misbehave(&rig, |device| device.holds_io = true);
    rig.run(20);
    let before = rig.model.outstanding(1);
    rig.configure(0);
    driver.submit(&mut rig, 1, [2 << 32, 0, 0, 0, 0, 0, 0, 0]);
    rig.run(20);
    assert_eq!(rig.model.outstanding(1), before);
}

#[test]
fn a_device_that_fails_meanwhile_is_disabled_at_once() {
    for is_gone in [false, true] {
        let (mut rig, mut driver) = busy();
        misbehave(&rig, |device| device.holds_io = true);
        rig.configure(0);
        rig.run(20);
        misbehave(&rig, |device| {
            device.fatal = !is_gone;
            device.gone = is_gone;
        });
        rig.run(1);
        assert!(rig.is_fatal());
        assert_eq!(rig.model.register(CC), 0);
        misbehave(&rig, |_| {});
        assert!(rig.run_until(|rig| !rig.is_ready() && !rig.is_fatal()));
        assert!(driver.enable(&mut rig));
    }
}
