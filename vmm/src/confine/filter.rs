// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Filters of system calls, made from [the table](super::calls) for the thread that gets one.

use std::collections::BTreeMap;
use std::io;

use rustix::process::getpid;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter, sock_filter,
};

use super::calls::{CALLS, Call, WITHOUT, When};
use super::error::ConfineError;
use super::thread_kind::ThreadKind;
use crate::config::Seccomp;

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

/// Where a program finds the number of a call (include/uapi/linux/seccomp.h `struct seccomp_data`).
const NUMBER: u32 = 0;
/// Numbers that are compared one after the other at most.
const AT_ONCE: usize = 4;

/// A number of a system call, and with which arguments: any if there are none.
type Rule = (i64, Vec<SeccompRule>);

/// Filters the system calls of this thread, and of those that it starts.
///
/// # Errors
/// [`ConfineError::SeccompFilter`]
pub fn install(mode: Seccomp, kind: ThreadKind) -> Result<(), ConfineError> {
    let otherwise = match mode {
        Seccomp::On => SeccompAction::Trap,
        Seccomp::Log => SeccompAction::Log,
        Seccomp::Off => return Ok(()),
    };
    for program in compile(kind, &otherwise).map_err(failed(kind))? {
        apply_filter(&program).map_err(|error| match error {
            seccompiler::Error::Prctl(source) | seccompiler::Error::Seccomp(source) => {
                ConfineError::SeccompFilter {
                    thread: kind.name(),
                    source,
                }
            }
            error => failed(kind)(error),
        })?;
    }
    Ok(())
}

fn failed<E: std::error::Error + Send + Sync + 'static>(
    kind: ThreadKind,
) -> impl FnOnce(E) -> ConfineError {
    move |error| ConfineError::SeccompFilter {
        thread: kind.name(),
        source: io::Error::other(error),
    }
}

fn compile(kind: ThreadKind, otherwise: &SeccompAction) -> Result<Vec<BpfProgram>, BackendError> {
    let mut programs = vec![searching(rules(kind)?, otherwise)?];
    // The strictest answer of several filters counts (seccomp(2)).
    if kind == ThreadKind::Main {
        let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
        let rules = BTreeMap::from([(WITHOUT, Vec::new())]);
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, absent, ARCH)?;
        programs.push(filter.try_into()?);
    }
    Ok(programs)
}

/// What threads of this kind may do, by numbers, which ascend.
fn rules(kind: ThreadKind) -> Result<Vec<Rule>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in CALLS.iter().filter(|call| call.threads.contains(kind)) {
        let of_call = rules.entry(call.number).or_default();
        // A call without rules may have any arguments.
        of_call.extend(rule(call)?);
    }
    Ok(rules.into_iter().collect())
}

/// A program for `rules`, which ascend: it leads a call to the few rules that it may be about. Those of seccompiler compare
/// with one number after the other, and the kernel tries each number that a call can have when it takes a program
/// (kernel/seccomp.c seccomp_cache_prepare).
fn searching(rules: Vec<Rule>, otherwise: &SeccompAction) -> Result<BpfProgram, BackendError> {
    let mut program = comparing(Vec::new(), otherwise)?;
    // Without rules, all that comes before the answer is about the architecture.
    program.pop();
    let before = program.len();
    program.push(instruction(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        0,
        NUMBER,
    ));
    append(&mut program, rules, otherwise, before)?;
    Ok(program)
}

/// Appends a search among `rules` to `program`, which has the number by now. Each of its ways ends. The first instructions of
/// seccompiler's programs, `before` the rules, are left out.
fn append(
    program: &mut BpfProgram,
    mut rules: Vec<Rule>,
    otherwise: &SeccompAction,
    before: usize,
) -> Result<(), BackendError> {
    let high = rules.split_off(rules.len() / 2);
    let first = high.first().map(|(number, _)| u32::try_from(*number));
    let (true, Some(Ok(first))) = (rules.len() + high.len() > AT_ONCE, first) else {
        rules.extend(high);
        program.extend(comparing(rules, otherwise)?.drain(before..));
        return Ok(());
    };
    program.push(instruction(
        libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K,
        1,
        first,
    ));
    let jump = program.len();
    program.push(instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0));
    append(program, rules, otherwise, before)?;
    let skipped = program.len() - jump - 1;
    program[jump].k = u32::try_from(skipped).map_err(|_| BackendError::FilterTooLarge(skipped))?;
    append(program, high, otherwise, before)
}

/// seccompiler's program for `rules`.
fn comparing(rules: Vec<Rule>, otherwise: &SeccompAction) -> Result<BpfProgram, BackendError> {
    let rules = rules.into_iter().collect();
    SeccompFilter::new(rules, otherwise.clone(), SeccompAction::Allow, ARCH)?.try_into()
}

/// A BPF instruction; a comparison that is false skips the next `jf` instructions.
fn instruction(code: u32, jf: u8, k: u32) -> sock_filter {
    // Codes have 8 bits (include/uapi/linux/bpf_common.h).
    let code = code.to_le_bytes()[0].into();
    sock_filter { code, jt: 0, jf, k }
}

fn rule(call: &Call) -> Result<Option<SeccompRule>, BackendError> {
    let (argument, length, operator, value) = match call.when {
        When::Any => return Ok(None),
        // The kernel takes these as 32 bits.
        When::Is(argument, value, _) => (
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            value.into(),
        ),
        When::Own(argument) => (
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            u64::from(getpid().as_raw_nonzero().get().unsigned_abs()),
        ),
        When::Has(argument, bits, _) => (
            argument,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::MaskedEq(bits),
            bits,
        ),
        When::HasNot(argument, bits, _) => (
            argument,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::MaskedEq(bits),
            0,
        ),
    };
    let condition = SeccompCondition::new(argument, length, operator, value)?;
    SeccompRule::new(vec![condition]).map(Some)
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn every_kind_of_thread_has_a_filter() {
        for otherwise in [SeccompAction::Trap, SeccompAction::Log] {
            for kind in ThreadKind::iter() {
                let programs = compile(kind, &otherwise).unwrap();
                // The kernel's limit (include/uapi/linux/bpf_common.h BPF_MAXINSNS).
                let fit = programs.iter().all(|program| program.len() < 4096);
                assert!(fit && !programs.is_empty(), "{kind:?}");
            }
        }
    }

    /// What the kernel would do with a call, of which it shows these words (kernel/bpf `___bpf_prog_run`, as far as programs
    /// use it).
    fn outcome(program: &[sock_filter], data: [u32; 16]) -> u32 {
        let (mut next, mut value) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[next];
            next += 1;
            let is_true = match u32::from(code) {
                0x20 => {
                    value = data[k as usize / 4];
                    continue;
                }
                0x54 => {
                    value &= k;
                    continue;
                }
                0x05 => {
                    next += k as usize;
                    continue;
                }
                0x06 => return k,
                0x15 => value == k,
                0x25 => value > k,
                0x35 => value >= k,
                other => panic!("{other:#x}"),
            };
            next += usize::from(if is_true { jt } else { jf });
        }
    }

    #[test]
    fn a_search_finds_what_a_comparison_with_all_numbers_finds() {
        // What a program compares first is the architecture.
        let arch = comparing(Vec::new(), &SeccompAction::Trap).unwrap()[1].k;
        // Numbers of x32 have bit 30.
        let numbers = (0..600).chain(0x4000_0000..0x4000_0258).chain([u32::MAX]);
        for kind in ThreadKind::iter() {
            let rules = rules(kind).unwrap();
            let wanted = comparing(rules.clone(), &SeccompAction::Trap).unwrap();
            let found = searching(rules, &SeccompAction::Trap).unwrap();
            let same = |data: [u32; 16]| {
                let answers = (outcome(&found, data), outcome(&wanted, data));
                assert_eq!(answers.0, answers.1, "{kind:?}: {data:?}");
            };
            for number in numbers.clone() {
                for (arch, argument) in [(arch, 0), (arch, 1), (arch, u32::MAX), (!arch, 0)] {
                    let mut data = [argument; 16];
                    data[..2].copy_from_slice(&[number, arch]);
                    same(data);
                }
            }
            for call in CALLS {
                let When::Is(argument, value, _) = call.when else {
                    continue;
                };
                let mut data = [0; 16];
                data[..2].copy_from_slice(&[u32::try_from(call.number).unwrap(), arch]);
                data[4 + 2 * usize::from(argument)] = value;
                same(data);
            }
        }
    }

    #[test]
    fn a_call_with_any_arguments_has_no_other_row() {
        for call in CALLS.iter().filter(|call| call.when == When::Any) {
            let rows = CALLS.iter().filter(|other| other.number == call.number);
            assert_eq!(rows.count(), 1, "{}", call.name);
        }
    }

    #[test]
    fn threads_that_the_main_thread_starts_may_do_what_it_may() {
        for call in CALLS {
            let inherits = call.threads.contains(ThreadKind::SerialOutput);
            let is_mains = call.threads.contains(ThreadKind::Main);
            assert!(!inherits || is_mains, "{}", call.name);
        }
    }
}
