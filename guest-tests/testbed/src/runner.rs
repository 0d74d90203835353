// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs cases, at most two at once, and reports each in one line.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::machine::interrupted;
use crate::setup::Arch;

/// Result of a case; the error is for the reader.
pub type CaseResult = Result<(), String>;

/// When a case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// In every run.
    Default,
    /// In every run on PCs; on other machines only with `--long`.
    DefaultOnPc,
    /// Only with `--long`.
    Long,
}

impl List {
    /// Whether it runs without `--long` on machines of `arch`.
    fn is_default(self, arch: Arch) -> bool {
        match self {
            Self::Default => true,
            Self::DefaultOnPc => arch == Arch::X86_64,
            Self::Long => false,
        }
    }
}

/// What a case does, by the machines that it is for.
#[derive(Debug, Clone, Copy)]
pub enum Test {
    /// On a PC only.
    Pc(fn() -> crate::Result<CaseResult>),
    /// On aarch64 only.
    Aarch64(fn() -> crate::Result<CaseResult>),
    /// On machines of every architecture.
    Any(fn(Arch) -> crate::Result<CaseResult>),
}

impl Test {
    /// Whether it runs on machines of `arch`.
    #[must_use]
    pub fn is_for(self, arch: Arch) -> bool {
        match self {
            Self::Pc(_) => arch == Arch::X86_64,
            Self::Aarch64(_) => arch == Arch::Aarch64,
            Self::Any(_) => true,
        }
    }

    fn run(self, arch: Arch) -> crate::Result<CaseResult> {
        match self {
            Self::Pc(run) | Self::Aarch64(run) => run(),
            Self::Any(run) => run(arch),
        }
    }
}

/// A test on the real path.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name; a filter is a part of it.
    pub name: &'static str,
    /// What it should take on two idle cores. Printed, never judged.
    pub budget: Duration,
    /// When it runs.
    pub list: List,
    /// The test.
    pub test: Test,
}

/// Test machines that run at the same time.
const AT_ONCE: usize = 2;

/// Lines of a failure's reason that the end of a run repeats.
const REPEATED: usize = 3;

/// Which cases to run, and on which machines.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// Architecture of the machines; a case that is not for it does not run.
    pub arch: Arch,
    /// Part of the cases' names; or `=` and the name of one, which runs whatever list it is in.
    pub filter: &'a str,
    /// Whether long cases run, too.
    pub long: bool,
}

impl Choice<'_> {
    fn has(&self, case: &Case) -> bool {
        let is_chosen = match self.filter.strip_prefix('=') {
            Some(name) => case.name == name,
            None => {
                case.name.contains(self.filter) && (self.long || case.list.is_default(self.arch))
            }
        };
        is_chosen && case.test.is_for(self.arch)
    }
}

/// Runs the cases of `choice` and returns whether all passed. Prints a line for each when it is done, with the
/// reason if it failed; in the end the first lines of all reasons, and `N passed, N failed`.
pub fn run(cases: &[Case], choice: Choice<'_>) -> bool {
    let chosen: Vec<&Case> = cases.iter().filter(|case| choice.has(case)).collect();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let passed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match run_one(case, choice.arch) {
                        Ok(()) => _ = passed.fetch_add(1, Ordering::Relaxed),
                        Err(reason) => failures
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push((case.name, reason)),
                    }
                }
            });
        }
    });
    let failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    for (name, reason) in &failures {
        let lines: Vec<_> = reason.lines().take(REPEATED).collect();
        println!("\n---- {name}\n{}", lines.join("\n"));
    }
    let passed = passed.into_inner();
    println!("\n{passed} passed, {} failed", failures.len());
    failures.is_empty() && passed > 0
}

fn run_one(case: &Case, arch: Arch) -> CaseResult {
    if interrupted() {
        return Err("not run: interrupted".into());
    }
    let begin = Instant::now();
    let result = panic::catch_unwind(AssertUnwindSafe(|| case.test.run(arch))).map_or_else(
        |_| Err("the case panicked; see above".into()),
        |judged| judged.unwrap_or_else(|error| Err(error.to_string())),
    );
    let (verdict, reason) = match &result {
        Ok(()) => ("ok", String::new()),
        Err(reason) => ("FAILED", format!("\n{reason}\n")),
    };
    let (took, budget) = (begin.elapsed().as_secs_f64(), case.budget.as_secs());
    println!(
        "case {:<28} {verdict:<6} {took:6.1} s (budget {budget} s){reason}",
        case.name
    );
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &'static str, list: List, run: fn() -> crate::Result<CaseResult>) -> Case {
        Case {
            name,
            budget: Duration::from_secs(1),
            list,
            test: Test::Pc(run),
        }
    }

    /// Runs those on a PC whose names contain `filter`.
    fn run_on_pc(cases: &[Case], filter: &str, long: bool) -> bool {
        let arch = Arch::X86_64;
        run(cases, Choice { arch, filter, long })
    }

    #[test]
    fn a_case_runs_on_machines_that_it_is_for() {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let count = |arch| {
            if arch == Arch::Aarch64 {
                RUNS.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Ok(()))
        };
        let any = Case {
            test: Test::Any(count),
            ..case("any", List::Default, || Ok(Ok(())))
        };
        let pc = case("pc", List::Default, || Ok(Ok(())));
        let choice = |filter| Choice {
            arch: Arch::Aarch64,
            filter,
            long: false,
        };
        assert!(run(&[any, pc], choice("")));
        assert!(!run(&[any, pc], choice("pc")), "nothing ran");
        assert!(run_on_pc(&[any, pc], "", false));
        assert_eq!(RUNS.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn some_cases_wait_to_be_asked_on_machines_that_are_no_pcs() {
        let case = Case {
            test: Test::Any(|_| Ok(Ok(()))),
            ..case("any", List::DefaultOnPc, || Ok(Ok(())))
        };
        for (arch, long, runs) in [
            (Arch::X86_64, false, true),
            (Arch::Aarch64, false, false),
            (Arch::Aarch64, true, true),
        ] {
            let filter = "";
            assert_eq!(run(&[case], Choice { arch, filter, long }), runs);
        }
    }

    #[test]
    fn one_case_is_chosen_by_its_whole_name() {
        let good = |name| case(name, List::Long, || Ok(Ok(())));
        let bad = |name| case(name, List::Default, || Ok(Err("no".into())));
        let cases = [good("one"), bad("one-more")];
        assert!(run_on_pc(&cases, "=one", false));
        assert!(!run_on_pc(&cases, "one", true));
        assert!(!run_on_pc(&cases, "=on", true), "nothing ran");
    }

    #[test]
    fn one_failure_fails_the_run() {
        let cases = [
            case("good", List::Default, || Ok(Ok(()))),
            case("bad", List::Default, || Ok(Err("no".into()))),
        ];
        assert!(run_on_pc(&cases[..1], "", false));
        assert!(!run_on_pc(&cases, "", false));
        assert!(run_on_pc(&cases, "good", false));
    }

    #[test]
    fn a_case_that_fails_is_not_run_again() {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let fails_once = case("once", List::Default, || {
            let number = RUNS.fetch_add(1, Ordering::Relaxed);
            Ok(if number == 0 {
                Err("no".into())
            } else {
                Ok(())
            })
        });
        assert!(!run_on_pc(&[fails_once], "", false));
        assert_eq!(RUNS.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_panic_is_a_failure() {
        assert!(!run_on_pc(
            &[case("bad", List::Default, || panic!("on purpose"))],
            "",
            false
        ));
    }

    #[test]
    fn long_cases_wait_to_be_asked_and_nothing_run_is_no_success() {
        let cases = [case("slow", List::Long, || Ok(Ok(())))];
        assert!(!run_on_pc(&cases, "", false));
        assert!(run_on_pc(&cases, "", true));
        assert!(!run_on_pc(&cases, "other", true));
    }
}
