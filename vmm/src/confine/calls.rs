// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The system calls that each kind of thread may make, and why: the only list, from which filters are made.
//! `docs/reference/confinement.md` shows it.

use iommufd_backend::requests;
use libc::c_long;

use super::thread_kind::ThreadKind;

/// A set of kinds of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads(u8);

impl Threads {
    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `kind` is in it.
    pub fn contains(self, kind: ThreadKind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }
}

const fn only(kind: ThreadKind) -> Threads {
    Threads(1 << kind as u8)
}

const MAIN: Threads = only(ThreadKind::Main);
const DEVICES: Threads = only(ThreadKind::VcpuDevices);
const VCPUS: Threads = only(ThreadKind::Vcpu).and(DEVICES);
const NVME: Threads = only(ThreadKind::GuardedNvme);
const OUTPUT: Threads = only(ThreadKind::SerialOutput);
const ALL: Threads = MAIN.and(VCPUS).and(NVME).and(OUTPUT);

/// What must hold of an argument, as the kernel gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing.
    Any,
    /// The low 32 bits of argument `0` are `1`; its name is `2`.
    Is(u8, u32, &'static str),
    /// Argument `0` has all bits of `1`; their name is `2`.
    Has(u8, u64, &'static str),
    /// Argument `0` has no bit of `1`; their name is `2`.
    HasNot(u8, u64, &'static str),
    /// Argument `0` is this process.
    Own(u8),
}

/// A system call that some threads may make.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// Its number.
    pub number: c_long,
    /// With which arguments.
    pub when: When,
    /// Which threads.
    pub threads: Threads,
    /// What for.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for readers, and for the document")
    )]
    pub why: &'static str,
}

/// Makes rows of the table: `name, condition, threads, reason`.
macro_rules! calls {
    ($($(#[$only:meta])* $name:ident, $when:expr, $threads:expr, $why:literal;)+) => {
        &[$($(#[$only])* Call {
            name: stringify!($name),
            number: number::$name,
            when: $when,
            threads: $threads,
            why: $why,
        }),+]
    };
}

/// Numbers by names.
#[expect(non_upper_case_globals, reason = "names of system calls")]
mod number {
    use libc::c_long;

    macro_rules! numbers {
        ($($(#[$only:meta])* $name:ident = $number:ident;)+) => {
            $($(#[$only])* pub const $name: c_long = libc::$number;)+
        };
    }
    numbers! {
        accept4 = SYS_accept4;
        bind = SYS_bind;
        brk = SYS_brk;
        clock_gettime = SYS_clock_gettime;
        clock_nanosleep = SYS_clock_nanosleep;
        clone = SYS_clone;
        clone3 = SYS_clone3;
        close = SYS_close;
        epoll_create1 = SYS_epoll_create1;
        epoll_ctl = SYS_epoll_ctl;
        epoll_pwait = SYS_epoll_pwait;
        #[cfg(target_arch = "x86_64")]
        epoll_wait = SYS_epoll_wait;
        eventfd2 = SYS_eventfd2;
        exit = SYS_exit;
        exit_group = SYS_exit_group;
        fcntl = SYS_fcntl;
        futex = SYS_futex;
        geteuid = SYS_geteuid;
        getpgid = SYS_getpgid;
        #[cfg(target_arch = "x86_64")]
        getpgrp = SYS_getpgrp;
        getpid = SYS_getpid;
        getrandom = SYS_getrandom;
        getsockopt = SYS_getsockopt;
        gettid = SYS_gettid;
        io_uring_register = SYS_io_uring_register;
        ioctl = SYS_ioctl;
        listen = SYS_listen;
        madvise = SYS_madvise;
        mkdirat = SYS_mkdirat;
        mmap = SYS_mmap;
        mprotect = SYS_mprotect;
        mremap = SYS_mremap;
        munmap = SYS_munmap;
        nanosleep = SYS_nanosleep;
        newfstatat = SYS_newfstatat;
        #[cfg(target_arch = "x86_64")]
        poll = SYS_poll;
        ppoll = SYS_ppoll;
        prctl = SYS_prctl;
        pread64 = SYS_pread64;
        prlimit64 = SYS_prlimit64;
        pwrite64 = SYS_pwrite64;
        read = SYS_read;
        recvfrom = SYS_recvfrom;
        recvmsg = SYS_recvmsg;
        restart_syscall = SYS_restart_syscall;
        rseq = SYS_rseq;
        rt_sigprocmask = SYS_rt_sigprocmask;
        rt_sigreturn = SYS_rt_sigreturn;
        sched_getaffinity = SYS_sched_getaffinity;
        sched_yield = SYS_sched_yield;
        seccomp = SYS_seccomp;
        sendmsg = SYS_sendmsg;
        sendto = SYS_sendto;
        set_robust_list = SYS_set_robust_list;
        setsockopt = SYS_setsockopt;
        shutdown = SYS_shutdown;
        sigaltstack = SYS_sigaltstack;
        socket = SYS_socket;
        tgkill = SYS_tgkill;
        unlinkat = SYS_unlinkat;
        wait4 = SYS_wait4;
        waitid = SYS_waitid;
        write = SYS_write;
        writev = SYS_writev;
    }
}

/// Refused with `ENOSYS` on the main thread, so that the C library uses `clone`, whose flags can be looked at.
pub const WITHOUT: c_long = number::clone3;

const fn request(number: u32, name: &'static str) -> When {
    When::Is(1, number, name)
}

const fn option(number: i32, name: &'static str) -> When {
    When::Is(0, number.cast_unsigned(), name)
}

const fn control(number: i32, name: &'static str) -> When {
    When::Is(1, number.cast_unsigned(), name)
}

const NO_CODE: u64 = libc::PROT_EXEC as u64;
const A_THREAD: u64 = libc::CLONE_THREAD as u64;

/// Number of a request of KVM's (include/uapi/linux/kvm.h): whether it writes and reads `bytes`.
const fn kvm(direction: u32, number: u32, bytes: u32) -> u32 {
    direction << 30 | bytes << 16 | 0xae << 8 | number
}
const NOTHING: u32 = 0;
const WRITES: u32 = 1;
#[cfg(target_arch = "x86_64")]
const BOTH: u32 = 3;

const KVM_RUN: u32 = kvm(NOTHING, 0x80, 0);
const KVM_SET_USER_MEMORY_REGION: u32 = kvm(WRITES, 0x46, 32);
const KVM_IRQ_LINE: u32 = kvm(WRITES, 0x61, 8);
const KVM_SET_GSI_ROUTING: u32 = kvm(WRITES, 0x6a, 8);
const KVM_IRQFD: u32 = kvm(WRITES, 0x76, 32);
const KVM_IOEVENTFD: u32 = kvm(WRITES, 0x79, 64);
const KVM_SIGNAL_MSI: u32 = kvm(WRITES, 0xa5, 32);
#[cfg(target_arch = "x86_64")]
const KVM_GET_IRQCHIP: u32 = kvm(BOTH, 0x62, 520);
#[cfg(target_arch = "aarch64")]
const KVM_GET_DEVICE_ATTR: u32 = kvm(WRITES, 0xe2, 24);

const _: () = {
    assert!(KVM_RUN == 0xae80);
    assert!(KVM_SET_USER_MEMORY_REGION == 0x4020_ae46);
    assert!(KVM_SET_GSI_ROUTING == 0x4008_ae6a);
    assert!(KVM_IRQFD == 0x4020_ae76);
    assert!(KVM_IOEVENTFD == 0x4040_ae79);
    assert!(KVM_SIGNAL_MSI == 0x4020_aea5);
};

/// Requests to terminals (include/uapi/asm-generic/ioctls.h).
const TCGETS: u32 = 0x5401;
const TCSETS: u32 = 0x5402;
const TIOCGPGRP: u32 = 0x540f;
const TIOCGWINSZ: u32 = 0x5413;
const TCGETS2: u32 = 0x802c_542a;
const TCSETS2: u32 = 0x402c_542b;

/// The table.
pub const CALLS: &[Call] = calls! {
    ioctl, request(KVM_RUN, "KVM_RUN"), VCPUS, "run the guest";
    ioctl, request(KVM_SET_USER_MEMORY_REGION, "KVM_SET_USER_MEMORY_REGION"), MAIN.and(DEVICES).and(NVME), "map and unmap BARs where the guest has them, and pages of doorbells; remove memory in the end";
    ioctl, request(KVM_IRQ_LINE, "KVM_IRQ_LINE"), MAIN.and(VCPUS), "the power button; interrupt lines of devices";
    ioctl, request(KVM_SET_GSI_ROUTING, "KVM_SET_GSI_ROUTING"), MAIN.and(DEVICES), "message interrupts of devices";
    ioctl, request(KVM_IRQFD, "KVM_IRQFD"), MAIN.and(DEVICES), "connect interrupts of devices to the guest";
    ioctl, request(KVM_IOEVENTFD, "KVM_IOEVENTFD"), MAIN.and(DEVICES).and(NVME), "doorbells of guarded controllers";
    ioctl, request(KVM_SIGNAL_MSI, "KVM_SIGNAL_MSI"), MAIN.and(DEVICES).and(NVME), "interrupts of emulated functions and of guarded controllers";
    #[cfg(target_arch = "x86_64")]
    ioctl, request(KVM_GET_IRQCHIP, "KVM_GET_IRQCHIP"), MAIN, "whether the guest listens to its power button";
    #[cfg(target_arch = "aarch64")]
    ioctl, request(KVM_GET_DEVICE_ATTR, "KVM_GET_DEVICE_ATTR"), MAIN, "whether the guest listens to its power button";
    ioctl, request(requests::VFIO_DEVICE_SET_IRQS, "VFIO_DEVICE_SET_IRQS"), MAIN.and(DEVICES).and(NVME), "interrupts of devices";
    ioctl, request(requests::VFIO_DEVICE_RESET, "VFIO_DEVICE_RESET"), MAIN.and(DEVICES).and(NVME), "reset a device, in the end and for its guest";
    ioctl, request(requests::VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO"), MAIN, "reset the bus of devices";
    ioctl, request(requests::VFIO_DEVICE_PCI_HOT_RESET, "VFIO_DEVICE_PCI_HOT_RESET"), MAIN, "reset the bus of devices";
    ioctl, request(requests::IOMMU_IOAS_UNMAP, "IOMMU_IOAS_UNMAP"), MAIN, "release memory";
    ioctl, request(requests::IOMMU_DESTROY, "IOMMU_DESTROY"), MAIN, "release memory";
    ioctl, request(TCGETS, "TCGETS"), ALL, "restore the terminal, also after a fatal signal in any thread";
    ioctl, request(TCGETS2, "TCGETS2"), ALL, "the same";
    ioctl, request(TCSETS, "TCSETS"), ALL, "the same";
    ioctl, request(TCSETS2, "TCSETS2"), ALL, "the same";
    ioctl, request(TIOCGPGRP, "TIOCGPGRP"), ALL, "the same";
    ioctl, request(TIOCGWINSZ, "TIOCGWINSZ"), ALL, "the same";
    read, When::Any, ALL, "counters of eventfds, signals, input of the guest";
    write, When::Any, ALL, "eventfds, output of the guest, log, events";
    writev, When::Any, ALL, "the same";
    pread64, When::Any, MAIN.and(DEVICES).and(NVME), "registers and config space of devices, the page check";
    pwrite64, When::Any, MAIN.and(DEVICES).and(NVME), "registers and config space of devices";
    close, When::Any, ALL, "release what was open";
    fcntl, control(libc::F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"), MAIN.and(DEVICES), "a second descriptor of an eventfd or a socket";
    fcntl, control(libc::F_GETFD, "F_GETFD"), ALL, "debug builds make sure that what they close is open";
    futex, When::Any, ALL, "locks, and the end of threads";
    #[cfg(target_arch = "x86_64")]
    poll, When::Any, ALL, "wait until output has room";
    ppoll, When::Any, ALL, "wait until output has room";
    epoll_create1, When::Any, MAIN, "the event loop";
    epoll_ctl, When::Any, MAIN, "the event loop";
    #[cfg(target_arch = "x86_64")]
    epoll_wait, When::Any, MAIN.and(NVME), "the event loop; wait for the guest and the controller";
    epoll_pwait, When::Any, MAIN.and(NVME), "the event loop; wait for the guest and the controller";
    eventfd2, When::Any, MAIN.and(DEVICES), "an eventfd for each interrupt that the guest enables";
    prlimit64, When::HasNot(2, u64::MAX, "a new limit"), MAIN.and(DEVICES), "how many files may be open, before such an eventfd";
    mmap, When::HasNot(2, NO_CODE, "PROT_EXEC"), ALL, "heap and stacks; BARs";
    mprotect, When::HasNot(2, NO_CODE, "PROT_EXEC"), ALL, "heap and stacks";
    mremap, When::Any, ALL, "heap";
    munmap, When::Any, ALL, "heap and stacks; BARs; guest memory in the end";
    madvise, When::Any, ALL, "heap and stacks; the page check; unmap the program's code that only a start needs";
    brk, When::Any, ALL, "heap";
    getrandom, When::Any, ALL, "seeds of hash tables";
    clock_gettime, When::Any, ALL, "times, where the kernel has no vDSO for them";
    clock_nanosleep, When::Any, MAIN.and(DEVICES).and(NVME), "wait for a reset";
    nanosleep, When::Any, MAIN.and(DEVICES).and(NVME), "wait for a reset";
    sched_yield, When::Any, ALL, "wait for a lock; a thread that polls";
    restart_syscall, When::Any, ALL, "continue a wait after a signal";
    rt_sigprocmask, When::Any, ALL, "the start and the end of threads";
    rt_sigreturn, When::Any, ALL, "return from a signal handler";
    sigaltstack, When::Any, ALL, "the start and the end of threads";
    getpid, When::Any, ALL, "end the process by a fatal signal; the filter of a later thread";
    gettid, When::Any, ALL, "end the process by a fatal signal";
    getpgid, When::Any, ALL, "whether the terminal is this process's";
    #[cfg(target_arch = "x86_64")]
    getpgrp, When::Any, ALL, "whether the terminal is this process's";
    tgkill, When::Own(0), ALL, "interrupt a vCPU; end the process by a fatal signal";
    exit, When::Any, ALL, "end a thread";
    exit_group, When::Any, ALL, "end the process";
    clone, When::Has(0, A_THREAD, "CLONE_THREAD"), MAIN, "threads that reset several devices at once, remove the VM meanwhile, or write to a new client";
    clone3, When::Any, MAIN, "nothing: a second filter refuses it with ENOSYS, so that the C library uses clone";
    set_robust_list, When::Any, MAIN, "the start of such a thread";
    rseq, When::Any, MAIN, "the start of such a thread";
    sched_getaffinity, When::Any, MAIN, "the start of such a thread";
    prctl, option(libc::PR_SET_NAME, "PR_SET_NAME"), MAIN, "the name of such a thread";
    prctl, option(libc::PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS"), MAIN, "the filter of such a thread";
    seccomp, When::Is(0, libc::SECCOMP_SET_MODE_FILTER, "SECCOMP_SET_MODE_FILTER"), MAIN, "the filter of such a thread";
    accept4, When::Any, MAIN, "clients of the guest's serial port";
    recvfrom, When::Any, MAIN, "clients of the guest's serial port";
    sendto, When::Any, MAIN, "clients of the guest's serial port";
    shutdown, When::Any, MAIN, "clients of the guest's serial port";
    recvmsg, When::Any, MAIN, "the keeper";
    sendmsg, When::Any, MAIN, "the keeper";
    wait4, When::Any, MAIN, "the end of the keeper";
    waitid, When::Any, MAIN, "the end of the keeper";
    newfstatat, When::Any, MAIN, "whether pidfile and socket still are this process's";
    unlinkat, When::Any, MAIN, "remove pidfile and socket";
    io_uring_register, When::Any, MAIN, "end pins of kernels before 7.3";
    socket, When::Is(0, libc::AF_UNIX.cast_unsigned(), "AF_UNIX"), MAIN, "keep memory in place of a keeper that was killed";
    bind, When::Any, MAIN, "the same";
    listen, When::Any, MAIN, "the same";
    getsockopt, When::Any, MAIN, "the same";
    setsockopt, When::Any, MAIN, "the same";
    mkdirat, When::Any, MAIN, "the same";
    geteuid, When::Any, MAIN, "the same";
};
