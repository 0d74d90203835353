// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Keepers in a thread, whose monitor is a process that does nothing, and whose devices are files.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::{fs, thread::sleep};

use iommufd_backend::{Because, Leftover};
use rustix::process::Pid;

use super::*;
use crate::{Found, find, release};

const DISK: &str = "0000:01:00.0";
const READY: Answer = Answer::Ready { found: false };

/// A monitor, its keeper, and the machine that they are on.
struct Rig {
    root: tempfile::TempDir,
    channel: Option<Channel>,
    monitor: Child,
    keeper: Option<JoinHandle<Result<(), KeeperError>>>,
}

impl Rig {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("sys/bus/pci/devices").join(DISK);
        fs::create_dir_all(&device).unwrap();
        let mut config = [0; 64];
        config[4] = 6;
        fs::write(device.join("config"), config).unwrap();
        fs::write(device.join("reset_method"), "flr\n").unwrap();
        fs::write(device.join("driver_override"), "vfio-pci\n").unwrap();
        fs::write(device.join("reset"), "").unwrap();
        let (ours, theirs) = Channel::pair().unwrap();
        let monitor = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let number = Pid::from_child(&monitor);
        let pidfd = pidfd_open(number, PidfdFlags::empty()).unwrap();
        let place = Place {
            sysfs: PciSysfs::at(&root.path().join("sys")),
            directory: root.path().join("keepers"),
            settle: Duration::ZERO,
        };
        let keeper = thread::spawn(move || serve(theirs, pidfd, &place));
        Self {
            root,
            channel: Some(ours),
            monitor,
            keeper: Some(keeper),
        }
    }

    fn device(&self, file: &str) -> PathBuf {
        let devices = self.root.path().join("sys/bus/pci/devices");
        devices.join(DISK).join(file)
    }

    fn tell(&self, request: &Request) {
        let file = tempfile::tempfile().unwrap();
        let channel = self.channel.as_ref().unwrap();
        channel.send(request, &[file.as_fd()]).unwrap();
    }

    fn answer(&self) -> Answer {
        let channel = self.channel.as_ref().unwrap();
        channel.receive::<Answer>().unwrap().unwrap().0
    }

    fn hold(&self) {
        self.tell(&Request::Hold {
            devices: vec![kept("")],
        });
        assert_eq!(self.answer(), READY);
        self.tell(&Request::Memory { bytes: 64 << 20 });
    }

    /// For a device that is to be opened through its group.
    fn hold_group(&self) {
        let through_group = Kept {
            through_group: true,
            ..kept("")
        };
        let channel = self.channel.as_ref().unwrap();
        let hold = Request::Hold {
            devices: vec![through_group],
        };
        channel.send(&hold, &[]).unwrap();
        assert_eq!(self.answer(), READY);
    }

    /// Has `parts` of a file of 1 MiB pinned, if it is sent.
    fn pin(&self, parts: Vec<Range<u64>>, file: Option<&File>) -> Answer {
        let files: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
        let channel = self.channel.as_ref().unwrap();
        channel.send(&Request::Pin { parts }, &files).unwrap();
        self.answer()
    }

    /// Gives the device a group, which opens if it is `free`.
    fn make_group(&self, free: bool) {
        let group = self.root.path().join("sys/kernel/iommu_groups/4");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("name"), "vfio-noiommu\n").unwrap();
        symlink(&group, self.device("iommu_group")).unwrap();
        if free {
            let nodes = self.root.path().join("dev/vfio");
            fs::create_dir_all(&nodes).unwrap();
            fs::write(nodes.join("noiommu-4"), "").unwrap();
        }
    }

    fn end_of_monitor(&mut self) {
        self.channel = None;
        self.monitor.kill().unwrap();
        self.monitor.wait().unwrap();
    }

    /// The keeper, once it can be found.
    fn found(&self) -> Found {
        loop {
            if let Some(found) = find(&self.root.path().join("keepers")).pop() {
                return found;
            }
            let is_running = !self.keeper.as_ref().unwrap().is_finished();
            assert!(is_running, "it ended without being found");
            sleep(Duration::from_millis(5));
        }
    }

    fn join(mut self) {
        self.keeper.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}

fn kept(why: &str) -> Kept {
    let device = Leftover {
        bdf: DISK.parse().unwrap(),
        parent: None,
        seen_in_slot: false,
        accepted: false,
        through_group: false,
    };
    Kept::new(&device, why.into())
}

#[test]
fn an_ordinary_end_leaves_nothing() {
    let rig = Rig::new();
    rig.hold();
    rig.tell(&Request::Released);
    let root = rig.root.path().to_owned();
    assert_eq!(fs::read(rig.device("reset")).unwrap(), b"");
    rig.join();
    assert!(!root.join("keepers").exists());
}

#[test]
fn the_device_of_a_killed_monitor_is_stopped_and_reset() {
    let mut rig = Rig::new();
    rig.hold();
    rig.end_of_monitor();
    let device = rig.device("");
    let keeper = rig.keeper.take().unwrap();
    keeper.join().unwrap().unwrap();
    assert_eq!(fs::read(device.join("reset")).unwrap(), b"1");
    assert_eq!(fs::read(device.join("config")).unwrap()[4], 2);
}

#[test]
fn the_process_that_took_over_is_watched_in_place_of_the_monitor() {
    let mut rig = Rig::new();
    rig.hold();
    let mut receiver = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let pidfd = pidfd_open(Pid::from_child(&receiver), PidfdFlags::empty()).unwrap();
    let channel = rig.channel.take().unwrap();
    let answer = |files: &[_]| {
        channel.send(&Request::Watch, files).unwrap();
        channel.receive::<Answer>().unwrap().unwrap().0
    };
    assert!(matches!(answer(&[]), Answer::Refused { .. }));
    assert_eq!(answer(&[pidfd.as_fd()]), READY);
    drop(channel);
    receiver.kill().unwrap();
    receiver.wait().unwrap();
    // The first monitor still runs.
    rig.keeper.take().unwrap().join().unwrap().unwrap();
    assert_eq!(fs::read(rig.device("reset")).unwrap(), b"1");
}

fn memory() -> File {
    let file = rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = File::from(file);
    file.set_len(1 << 20).unwrap();
    file
}

#[test]
fn a_keeper_says_when_it_has_pinned_memory_and_when_it_cannot() {
    let rig = Rig::new();
    rig.hold_group();
    let file = memory();
    let parts = vec![0..0x4000, 0x8000..0x9000];
    assert_eq!(rig.pin(parts, Some(&file)), READY);
    for (parts, file) in [
        (vec![0..2 << 20], Some(&file)),
        (vec![0x4000..0x4000], Some(&file)),
        (vec![0..0x1000], None),
    ] {
        let answer = rig.pin(parts.clone(), file);
        assert!(matches!(answer, Answer::Refused { .. }), "{parts:?}");
    }
    rig.tell(&Request::Memory { bytes: 1 << 20 });
    rig.tell(&Request::Released);
    rig.join();
}

#[test]
fn a_killed_monitors_device_is_reset_once_its_group_is_free() {
    let mut rig = Rig::new();
    rig.make_group(true);
    rig.hold_group();
    assert_eq!(rig.pin(vec![0..1 << 20], Some(&memory())), READY);
    rig.tell(&Request::Memory { bytes: 1 << 20 });
    rig.end_of_monitor();
    let device = rig.device("");
    rig.keeper.take().unwrap().join().unwrap().unwrap();
    assert_eq!(fs::read(device.join("reset")).unwrap(), b"1");
    assert_eq!(fs::read(device.join("config")).unwrap()[4], 2);
}

#[test]
fn a_device_whose_group_stays_closed_is_kept_untouched() {
    let mut rig = Rig::new();
    rig.make_group(false);
    rig.hold_group();
    assert_eq!(rig.pin(vec![0..1 << 20], Some(&memory())), READY);
    rig.tell(&Request::Memory { bytes: 1 << 20 });
    rig.end_of_monitor();
    let found = rig.found();
    let [device] = found.status.devices.as_slice() else {
        panic!("{found:?}");
    };
    assert!(device.through_group);
    assert!(device.why.contains("noiommu-4"), "{}", device.why);
    assert_eq!(fs::read(rig.device("reset")).unwrap(), b"");
    assert_eq!(fs::read(rig.device("config")).unwrap()[4], 6);
    assert_eq!(release(&found, device.bdf).unwrap().devices, []);
    rig.join();
}

#[test]
fn nothing_is_reset_for_a_monitor_that_had_no_memory() {
    let mut rig = Rig::new();
    rig.tell(&Request::Hold {
        devices: vec![kept("")],
    });
    rig.end_of_monitor();
    let device = rig.device("");
    rig.keeper.take().unwrap().join().unwrap().unwrap();
    assert_eq!(fs::read(device.join("reset")).unwrap(), b"");
}

#[test]
fn what_cannot_be_reset_is_kept_until_it_has_been_reset() {
    let mut rig = Rig::new();
    rig.hold();
    symlink("drivers/nvme", rig.device("driver")).unwrap();
    rig.end_of_monitor();
    let found = rig.found();
    assert_eq!(found.pid, std::process::id());
    assert_eq!(found.status.bytes, 64 << 20);
    assert!(found.status.devices[0].why.contains("it is bound to nvme"));
    let other = "0000:02:00.0".parse().unwrap();
    assert_eq!(release(&found, other).unwrap().devices.len(), 1);
    let disk = DISK.parse().unwrap();
    assert_eq!(release(&found, disk).unwrap().devices, []);
    rig.join();
}

#[test]
fn a_monitor_has_it_keep_what_is_not_quiet() {
    let rig = Rig::new();
    rig.hold();
    rig.tell(&Request::Status);
    rig.tell(&Request::Keep {
        devices: vec![kept("its bus mastering cannot be disabled")],
    });
    let channel = rig.channel.as_ref().unwrap();
    let answers = [(); 2].map(|()| channel.receive::<Answer>().unwrap().unwrap().0);
    assert!(matches!(answers[0], Answer::Refused { .. }));
    assert_eq!(answers[1], Answer::Ready { found: true });
    let found = rig.found();
    let text = found.status.to_string();
    let wanted = "64 MiB for 0000:01:00.0 (its bus mastering cannot be disabled)";
    assert_eq!(text, wanted);
    release(&found, DISK.parse().unwrap()).unwrap();
    rig.join();
}

#[test]
fn a_monitor_has_it_reset_what_could_not_be_reset_while_it_was_open() {
    let rig = Rig::new();
    rig.hold();
    let settle = Request::Settle {
        devices: vec![kept("")],
    };
    rig.tell(&settle);
    let reset = Settled {
        bdf: DISK.parse().unwrap(),
        because: Because::Reset("flr".into()),
    };
    let settled = Answer::Settled {
        quiet: vec![reset],
        kept: Vec::new(),
    };
    assert_eq!(rig.answer(), settled);
    assert_eq!(fs::read(rig.device("reset")).unwrap(), b"1");
    assert_eq!(fs::read(rig.device("config")).unwrap()[4], 2);
    // One that another driver has by now is not reset.
    fs::write(rig.device("reset"), "").unwrap();
    symlink("drivers/nvme", rig.device("driver")).unwrap();
    rig.tell(&settle);
    let Answer::Settled { quiet, kept } = rig.answer() else {
        panic!("another answer");
    };
    assert_eq!(quiet, []);
    assert!(kept[0].why.contains("it is bound to nvme"), "{kept:?}");
    assert_eq!(fs::read(rig.device("reset")).unwrap(), b"");
    rig.tell(&Request::Released);
    rig.join();
}

#[test]
fn a_directory_that_others_can_write_to_is_not_trusted() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("keepers");
    let published = Published::new(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(find(&directory), []);
    assert!(Published::new(&directory).is_err());
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(directory.join("keeper-1"), "no socket").unwrap();
    drop(published);
    assert_eq!(find(&directory), []);
}
