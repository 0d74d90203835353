// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Filters of system calls, made from [the table](super::calls) for the thread that gets one.

use std::collections::BTreeMap;
use std::io;

use rustix::process::getpid;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use super::calls::{CALLS, Call, WITHOUT, When};
use super::error::ConfineError;
use super::thread_kind::ThreadKind;
use crate::config::Seccomp;

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

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
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in CALLS.iter().filter(|call| call.threads.contains(kind)) {
        let of_call = rules.entry(call.number).or_default();
        // A call without rules may have any arguments.
        of_call.extend(rule(call)?);
    }
    let main = SeccompFilter::new(rules, otherwise.clone(), SeccompAction::Allow, ARCH)?;
    let mut programs = vec![main.try_into()?];
    // The strictest answer of several filters counts (seccomp(2)).
    if kind == ThreadKind::Main {
        let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
        let rules = BTreeMap::from([(WITHOUT, Vec::new())]);
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, absent, ARCH)?;
        programs.push(filter.try_into()?);
    }
    Ok(programs)
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
