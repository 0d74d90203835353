// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! vCPU threads: run the guest, serve its requests, stop on request.

use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;

use address::Gpa;
use kvm_bindings::{
    KVM_INTERNAL_ERROR_DELIVERY_EV, KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET,
    KVM_SYSTEM_EVENT_SHUTDOWN,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use rustix::process::{Pid, getpid};
use vm_device::bus::MmioAddress;
use vm_device::device_manager::{IoManager, MmioManager};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler, unblock_signal};

use crate::arch::ArchExit;
use crate::confine::{Confinement, ThreadKind};
use crate::run::exit::{ExitReason, ExitSender};
use crate::run::threads::{self, Confined, ThreadError};

thread_local! {
    /// `kvm_run.immediate_exit` of the vCPU that this thread runs; null on other threads.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// The signal that gets a vCPU out of KVM_RUN.
fn kick_signal() -> i32 {
    SIGRTMIN()
}

/// Makes the signal known that [`VcpuThread::stop`] sends. Once for the process.
///
/// # Errors
/// The errno of `sigaction`.
pub fn install_kick_handler() -> io::Result<()> {
    extern "C" fn kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        let immediate_exit = IMMEDIATE_EXIT.get();
        if !immediate_exit.is_null() {
            // SAFETY: set by this thread in `run`, which clears it before the page goes away. A
            // signal handler runs on the same thread, so the byte is not written concurrently
            // but by the kernel, which only reads it.
            unsafe { immediate_exit.write_volatile(1) };
            fence(Ordering::SeqCst);
        }
    }
    register_signal_handler(kick_signal(), kick).map_err(io::Error::from)
}

/// Sends `signal` to the thread `number` of this process. The C library's functions name no process, so that a filter of
/// system calls could not tell which one they reach.
fn signal_thread(number: Pid, signal: i32) -> io::Result<()> {
    let (process, thread) = (getpid().as_raw_nonzero(), number.as_raw_nonzero());
    // SAFETY: the call takes numbers; a thread that has ended, or is none of this process's, is an error.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A vCPU with its thread, which is confined.
#[derive(Debug)]
pub struct VcpuThread {
    thread: JoinHandle<Option<()>>,
    number: Pid,
    stopping: Arc<AtomicBool>,
    /// It begins once it receives from here, and ends if this is dropped before.
    begin: Option<SyncSender<()>>,
}

/// How the threads of vCPUs are confined.
#[derive(Clone, Copy, Debug)]
pub struct VcpuConfinement<'a> {
    pub confinement: &'a Confinement,
    pub kind: ThreadKind,
}

impl VcpuThread {
    /// Gives vCPU `index` a thread of its own. From [`begin`](Self::begin) on it serves the guest from `bus`, and notifies
    /// `exits` why it ended, unless it was stopped.
    ///
    /// # Errors
    /// [`ThreadError`]
    pub fn spawn(
        index: u8,
        mut vcpu: VcpuFd,
        bus: Arc<IoManager>,
        exits: ExitSender,
        confinement: VcpuConfinement<'_>,
    ) -> Result<Self, ThreadError> {
        let patience = Patience::of(index);
        Self::start(index, exits, confinement, move |ends| {
            run(&mut vcpu, &bus, ends, patience)
        })
    }

    /// Starts a thread that does `work` until it is told to stop; `exits` receives what it returns.
    fn start(
        index: u8,
        exits: ExitSender,
        confinement: VcpuConfinement<'_>,
        work: impl FnOnce(&dyn Fn() -> bool) -> Option<ExitReason> + Send + 'static,
    ) -> Result<Self, ThreadError> {
        let stopping = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stopping);
        let (begin, begins) = mpsc::sync_channel(1);
        let VcpuConfinement { confinement, kind } = confinement;
        let started = threads::start(format!("vcpu{index}"), confinement, kind, move || {
            if begins.recv().is_err() {
                return;
            }
            let _notice = exits.on_panic();
            // The parent process may have blocked it, and the mask is inherited.
            if let Err(error) = unblock_signal(kick_signal()) {
                log::error!("vCPU {index} may not stop on request: {error:?}");
            }
            // What asked for the machine's end, a power-off or a restart, is not to be returned
            // from: a guest that continues tries other ways, down to a BIOS that is not there.
            if let Some(reason) = work(&|| seen.load(Ordering::SeqCst) || exits.is_decided()) {
                exits.send(reason);
            }
        })?;
        let Confined { thread, number } = started;
        Ok(Self {
            thread,
            number,
            stopping,
            begin: Some(begin),
        })
    }

    /// Lets it run. Everything else is confined by then.
    pub fn begin(&self) {
        // One that has ended takes nothing.
        let _ = self.begin.as_ref().map(|begin| begin.try_send(()));
    }

    /// Requests that the vCPU stops, without waiting.
    pub fn stop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.begin = None;
        // A thread that has ended by itself needs no signal.
        if !self.thread.is_finished()
            && let Err(error) = signal_thread(self.number, kick_signal())
        {
            log::debug!("Cannot signal a vCPU thread: {error}");
        }
    }

    /// Waits until the vCPU has stopped.
    pub fn join(self) {
        if self.thread.join().is_err() {
            log::error!("A vCPU thread panicked");
        }
    }
}

/// Runs the vCPU until it `ends`; otherwise returns why it cannot continue.
fn run(
    vcpu: &mut VcpuFd,
    bus: &IoManager,
    ends: &dyn Fn() -> bool,
    mut patience: Patience,
) -> Option<ExitReason> {
    IMMEDIATE_EXIT.set(&raw mut vcpu.get_kvm_run().immediate_exit);
    let mut reason = None;
    while !ends() && reason.is_none() {
        reason = patience.judge(step(vcpu, bus));
    }
    IMMEDIATE_EXIT.set(ptr::null_mut());
    reason
}

/// What came of entering the guest once.
enum Step {
    /// It can be entered again.
    Done,
    /// It was not entered: `EAGAIN`.
    Again,
    /// It accessed something emulated while KVM saw an event being delivered, which KVM does not
    /// emulate.
    WhileVectoring,
    /// It cannot continue.
    End(ExitReason),
}

/// So often in a row an access may look like part of an event's delivery. Nested KVM on an
/// emulated AMD CPU sees one where there is none: QEMU leaves the type of a page fault that the
/// guest handled itself in EXITINTINFO, with the valid bit clear, and KVM looks at the type. The
/// next entry has a clean one.
const MAX_VECTORING: u32 = 8;

/// So often in a row KVM may fail to start its worker thread, which it tries whenever a guest is
/// entered that has none (arch/x86/kvm/mmu/mmu.c `kvm_mmu_post_init_vm`): another process may have
/// been about to end.
const MAX_WORKER_RETRIES: u32 = 64;

/// How much longer steps are taken that come to nothing.
#[derive(Debug)]
struct Patience {
    is_boot: bool,
    vectoring: u32,
    again: u32,
}

impl Patience {
    /// That with vCPU `index`.
    fn of(index: u8) -> Self {
        Self {
            is_boot: index == 0,
            vectoring: 0,
            again: 0,
        }
    }

    /// Why the vCPU cannot continue after `step`, if so.
    fn judge(&mut self, step: Step) -> Option<ExitReason> {
        let (vectoring, again) = (self.vectoring, self.again);
        (self.vectoring, self.again) = (0, 0);
        match step {
            Step::Done => None,
            // The others get it whenever something wakes them that is not their start, as an NMI
            // for all CPUs does, and as long as that waits for them. The first one never sleeps so.
            Step::Again if !self.is_boot => None,
            Step::Again if again < MAX_WORKER_RETRIES => {
                self.again = again + 1;
                None
            }
            Step::Again => Some(ExitReason::NoWorker),
            Step::WhileVectoring if vectoring < MAX_VECTORING => {
                self.vectoring = vectoring + 1;
                log::debug!("KVM attributed an access to the delivery of an event: trying again");
                None
            }
            Step::WhileVectoring => Some(ExitReason::GuestCrash(
                "the CPU would fetch interrupt handlers from device registers".into(),
            )),
            Step::End(reason) => Some(reason),
        }
    }
}

/// Enters the guest once and serves its exit.
fn step(vcpu: &mut VcpuFd, bus: &IoManager) -> Step {
    match vcpu.run() {
        // Addresses where nothing is read as all-ones and swallow writes.
        Ok(VcpuExit::MmioRead(address, data)) => {
            if bus.mmio_read(MmioAddress(address), data).is_err() {
                data.fill(0xff);
            }
            Step::Done
        }
        Ok(VcpuExit::MmioWrite(address, data)) => {
            if bus.mmio_write(MmioAddress(address), data).is_err() {
                log::trace!("write to {address:#x}, which is not mapped: {data:x?}");
            }
            Step::Done
        }
        Ok(VcpuExit::InternalError) => match internal_error(vcpu) {
            (KVM_INTERNAL_ERROR_DELIVERY_EV, _) => Step::WhileVectoring,
            (number, data) => Step::End(ExitReason::GuestCrash(format!(
                "KVM cannot emulate an instruction (internal error {number}, {data:x?})"
            ))),
        },
        Ok(VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen) => Step::Done,
        Ok(other) => match ArchExit::of(other) {
            Ok(exit) => {
                exit.serve(vcpu, bus);
                Step::Done
            }
            Err(other) => Step::End(reason(&other)),
        },
        Err(error) if error.errno() == libc::EINTR => {
            vcpu.set_kvm_immediate_exit(0);
            Step::Done
        }
        Err(error) if error.errno() == libc::EAGAIN => Step::Again,
        // The page behind a BAR or a memslot is gone, and this kernel does not report which.
        Err(error) if error.errno() == libc::EFAULT => Step::End(ExitReason::AccessFailed(None)),
        Err(error) => Step::End(ExitReason::GuestCrash(format!("KVM_RUN failed: {error}"))),
    }
}

/// Why the guest cannot continue after `exit`.
fn reason(exit: &VcpuExit<'_>) -> ExitReason {
    let crashed = |text: String| ExitReason::GuestCrash(text);
    match exit {
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _) => ExitReason::PowerOff { status: 0 },
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) => ExitReason::Reset,
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_CRASH, _) => crashed("it reported a crash".into()),
        VcpuExit::Shutdown => crashed("triple fault".into()),
        VcpuExit::MemoryFault { gpa, .. } => ExitReason::AccessFailed(Some(Gpa(*gpa))),
        VcpuExit::FailEntry(code, cpu) => crashed(format!(
            "the CPU refused to enter it (hardware reason {code:#x} on CPU {cpu})"
        )),
        other => crashed(format!("unexpected exit {other:?}")),
    }
}

/// Number and data of the internal error that KVM_RUN has just ended with.
fn internal_error(vcpu: &mut VcpuFd) -> (u32, Vec<u64>) {
    // SAFETY: KVM fills this variant of the union in for the exit reason that the caller has
    // seen; every bit pattern of it is valid.
    let error = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal };
    let count = usize::try_from(error.ndata).unwrap_or(0);
    (error.suberror, error.data.into_iter().take(count).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU8;
    use std::time::{Duration, Instant};

    use vmm_sys_util::signal::block_signal;

    use super::*;
    use crate::run::exit;

    #[test]
    fn a_kick_arrives_though_the_signal_was_blocked_from_the_start() {
        install_kick_handler().unwrap();
        // In this thread, and in those that it starts.
        block_signal(kick_signal()).unwrap();
        let (exits, _) = exit::channel().unwrap();
        let (begins, begun) = mpsc::channel();
        let (tells, told) = mpsc::channel();
        let confinement = Confinement::default();
        let unconfined = VcpuConfinement {
            confinement: &confinement,
            kind: ThreadKind::Vcpu,
        };
        let mut thread = VcpuThread::start(0, exits, unconfined, move |_| {
            let immediate_exit = AtomicU8::new(0);
            IMMEDIATE_EXIT.set(immediate_exit.as_ptr());
            begins.send(()).unwrap();
            let began = Instant::now();
            while immediate_exit.load(Ordering::SeqCst) == 0 && began.elapsed().as_secs() < 5 {
                std::thread::sleep(Duration::from_millis(5));
            }
            IMMEDIATE_EXIT.set(ptr::null_mut());
            tells.send(immediate_exit.into_inner()).unwrap();
            None
        })
        .unwrap();
        thread.begin();
        begun.recv().unwrap();
        thread.stop();
        assert_eq!(told.recv().unwrap(), 1);
        thread.join();
    }

    #[test]
    fn a_guest_that_is_never_entered_ends_and_a_vcpu_that_waits_does_not() {
        let again = |index, count| {
            let mut patience = Patience::of(index);
            (0..count).find_map(|_| patience.judge(Step::Again))
        };
        assert_eq!(again(0, MAX_WORKER_RETRIES), None);
        assert_eq!(again(0, MAX_WORKER_RETRIES + 1), Some(ExitReason::NoWorker));
        assert_eq!(again(1, 10 * MAX_WORKER_RETRIES), None);
        let mut patience = Patience::of(0);
        for _ in 0..10 * MAX_WORKER_RETRIES {
            assert_eq!(patience.judge(Step::Again), None);
            assert_eq!(patience.judge(Step::Done), None);
        }
    }

    #[test]
    fn accesses_that_look_like_deliveries_are_tried_again_some_times() {
        let mut patience = Patience::of(1);
        let mut judge = |step| patience.judge(step);
        for _ in 0..MAX_VECTORING {
            assert_eq!(judge(Step::WhileVectoring), None);
        }
        assert_eq!(judge(Step::Done), None);
        for _ in 0..MAX_VECTORING {
            assert_eq!(judge(Step::WhileVectoring), None);
        }
        assert!(matches!(
            judge(Step::WhileVectoring),
            Some(ExitReason::GuestCrash(_))
        ));
    }
}
