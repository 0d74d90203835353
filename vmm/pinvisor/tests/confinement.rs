// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Each kind of thread attempts what it may not do, in a process of its own, and what it may do.
#![expect(clippy::panic, clippy::unwrap_used, reason = "these are tests")]

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use libc::c_long;
use vmm::config::{ConfineConfig, OnReset, Seccomp};
use vmm::confine::{Confinement, ThreadKind};

/// Selects the test below as the process that attempts something: the mode, the kind of thread, and what.
const CHILD: &str = "PINVISOR_TEST_CONFINED";

/// `KVM_RUN`, `KVM_SET_USER_MEMORY_REGION`, `VFIO_DEVICE_PCI_HOT_RESET`, `IOMMU_IOAS_MAP`, `TIOCSTI`
const RUN: c_long = 0xae80;
const MEMSLOT: c_long = 0x4020_ae46;
const HOT_RESET: c_long = 0x3b71;
const MAP: c_long = 0x3b85;
const TYPE: c_long = 0x5412;

/// System calls that change nothing if they are made: their descriptors and addresses are none.
fn calls(what: &str) -> (c_long, [c_long; 6]) {
    let none = -1;
    match what {
        "connect-out" => (libc::SYS_socket, [libc::AF_INET.into(), 1, 0, 0, 0, 0]),
        "open" => (libc::SYS_openat, [none, 0, 0, 0, 0, 0]),
        "execute" => (libc::SYS_execve, [0; 6]),
        "fork" => (
            libc::SYS_clone,
            [none & !i64::from(libc::CLONE_THREAD), 0, 0, 0, 0, 0],
        ),
        "map-code" => {
            let code = libc::PROT_EXEC.into();
            (libc::SYS_mmap, [0, 4096, code, 0, none, 0])
        }
        "make-code" => (libc::SYS_mprotect, [0, 0, libc::PROT_EXEC.into(), 0, 0, 0]),
        "signal-another" => (libc::SYS_tgkill, [1, 1, 0, 0, 0, 0]),
        "read-another" => (libc::SYS_process_vm_readv, [1, 0, 0, 0, 0, 0]),
        "trace" => (libc::SYS_ptrace, [none, 1, 0, 0, 0, 0]),
        "be-root" => (libc::SYS_setuid, [0; 6]),
        "remove" => (libc::SYS_unlinkat, [none, 0, 0, 0, 0, 0]),
        "read-at" => (libc::SYS_pread64, [none, 0, 0, 0, 0, 0]),
        "write" => (libc::SYS_write, [none, 0, 0, 0, 0, 0]),
        "wait" => (libc::SYS_epoll_pwait, [none, 0, 0, 0, 0, 0]),
        "run-cpu" => (libc::SYS_ioctl, [none, RUN, 0, 0, 0, 0]),
        "memslot" => (libc::SYS_ioctl, [none, MEMSLOT, 0, 0, 0, 0]),
        "reset-bus" => (libc::SYS_ioctl, [none, HOT_RESET, 0, 0, 0, 0]),
        "map-for-devices" => (libc::SYS_ioctl, [none, MAP, 0, 0, 0, 0]),
        "type" => (libc::SYS_ioctl, [none, TYPE, 0, 0, 0, 0]),
        _ => panic!("{what}"),
    }
}

/// What every thread is refused.
const NONE_MAY: [&str; 12] = [
    "connect-out",
    "open",
    "execute",
    "fork",
    "map-code",
    "make-code",
    "signal-another",
    "read-another",
    "trace",
    "be-root",
    "map-for-devices",
    "type",
];

/// What a kind is refused besides, and what it may do.
const KINDS: [(ThreadKind, &[&str], &[&str]); 5] = [
    (
        ThreadKind::Main,
        &["run-cpu"],
        &["remove", "read-at", "write", "wait", "memslot", "reset-bus"],
    ),
    (
        ThreadKind::Vcpu,
        &["remove", "read-at", "wait", "memslot", "reset-bus"],
        &["run-cpu", "write"],
    ),
    (
        ThreadKind::VcpuDevices,
        &["remove", "wait", "reset-bus"],
        &["run-cpu", "write", "read-at", "memslot"],
    ),
    (
        ThreadKind::GuardedNvme,
        &["remove", "run-cpu", "reset-bus"],
        &["write", "read-at", "wait"],
    ),
    (
        ThreadKind::SerialOutput,
        &[
            "remove",
            "run-cpu",
            "read-at",
            "wait",
            "memslot",
            "reset-bus",
        ],
        &["write"],
    ),
];

fn kind(name: &str) -> ThreadKind {
    let kinds = KINDS.iter().map(|(kind, ..)| *kind);
    kinds.into_iter().find(|kind| kind.name() == name).unwrap()
}

fn child(arguments: &str) {
    let words: Vec<_> = arguments.split(' ').collect();
    let [mode, name, what] = words[..] else {
        panic!("{arguments}");
    };
    pinvisor::fatal::install().unwrap();
    let config = ConfineConfig {
        seccomp: mode.parse().unwrap(),
        ..ConfineConfig::default()
    };
    let (number, [a, b, c, d, e, f]) = calls(what);
    let confinement = Confinement::new(&config, OnReset::Exit).unwrap();
    confinement.enclose().unwrap();
    confinement.enter(kind(name)).unwrap();
    // SAFETY: none of these calls does anything with these arguments but fail.
    unsafe { libc::syscall(number, a, b, c, d, e, f) };
    // SAFETY: nothing has to be done at the end of this process.
    unsafe { libc::_exit(0) };
}

fn attempt(mode: Seccomp, kind: ThreadKind, what: &str) -> Output {
    let mode: &str = mode.into();
    Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "threads_do_what_they_may_and_nothing_else",
            "--nocapture",
        ])
        .env(CHILD, format!("{mode} {} {what}", kind.name()))
        .output()
        .unwrap()
}

#[test]
fn threads_do_what_they_may_and_nothing_else() {
    if let Ok(arguments) = env::var(CHILD) {
        return child(&arguments);
    }
    for (kind, refused, allowed) in KINDS {
        for what in NONE_MAY.iter().chain(refused) {
            let output = attempt(Seccomp::On, kind, what);
            let (name, error) = (kind.name(), String::from_utf8_lossy(&output.stderr));
            assert_eq!(
                output.status.signal(),
                Some(libc::SIGSYS),
                "{name}: {what}: {error}"
            );
            let number = calls(what).0;
            let report = format!("its thread {name} attempted system call {number} (");
            assert!(error.contains(&report), "{name}: {what}: {error}");
        }
        for what in allowed {
            let output = attempt(Seccomp::On, kind, what);
            assert!(
                output.status.success(),
                "{}: {what}: {output:?}",
                kind.name()
            );
        }
    }
}

#[test]
fn what_is_logged_or_not_looked_at_is_done() {
    for mode in [Seccomp::Log, Seccomp::Off] {
        let output = attempt(mode, ThreadKind::Vcpu, "connect-out");
        assert!(output.status.success(), "{mode:?}: {output:?}");
    }
}
