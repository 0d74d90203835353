//! Runs cases, at most two at once, and tells of each in one line.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::machine::interrupted;

/// Result of a case; the error is what the reader needs to know.
pub type CaseResult = Result<(), String>;

/// A test on the real path.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name; a filter is a part of it.
    pub name: &'static str,
    /// What it should take on two idle cores. Printed, never judged.
    pub budget: Duration,
    /// Whether it only runs with `--long`.
    pub long: bool,
    /// The test.
    pub run: fn() -> crate::Result<CaseResult>,
}

/// What a failure tells of a fault of the emulator's, and what to call it.
const EMULATOR: [(&str, &str); 2] = [
    ("The script ended with timed out", "fell silent"),
    // A processor uses the memory map while another one changes it (QEMU 10.0, system/physmem.c).
    (
        "iotlb_to_section: Assertion",
        "was ended by QEMU's assertion",
    ),
];

/// Test machines that run at the same time.
const AT_ONCE: usize = 2;

/// Lines of a failure's reason that the end of a run repeats.
const REPEATED: usize = 3;

/// Runs the cases whose name contains `filter` and returns whether all passed. Prints a line for each when it
/// is done, with the reason if it failed; in the end the first lines of all reasons, and `N passed, N failed`.
pub fn run(cases: &[Case], filter: &str, long: bool) -> bool {
    let chosen: Vec<&Case> = cases
        .iter()
        .filter(|case| case.name.contains(filter) && (long || !case.long))
        .collect();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let passed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match run_one(case) {
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

fn run_one(case: &Case) -> CaseResult {
    if interrupted() {
        return Err("not run: interrupted".into());
    }
    let begin = Instant::now();
    let mut result = attempt(case);
    if let Some(fault) = result.as_ref().err().and_then(|reason| fault(reason))
        && !interrupted()
    {
        println!("case {:<28} {fault}: once more", case.name);
        result = attempt(case);
    }
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

/// The emulator's fault that a reason tells of.
fn fault(reason: &str) -> Option<&'static str> {
    let (_, fault) = EMULATOR.iter().find(|(words, _)| reason.contains(words))?;
    Some(fault)
}

fn attempt(case: &Case) -> CaseResult {
    panic::catch_unwind(AssertUnwindSafe(case.run)).map_or_else(
        |_| Err("the case panicked; see above".into()),
        |judged| judged.unwrap_or_else(|error| Err(error.to_string())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &'static str, long: bool, run: fn() -> crate::Result<CaseResult>) -> Case {
        Case {
            name,
            budget: Duration::from_secs(1),
            long,
            run,
        }
    }

    #[test]
    fn one_failure_fails_the_run() {
        let cases = [
            case("good", false, || Ok(Ok(()))),
            case("bad", false, || Ok(Err("no".into()))),
        ];
        assert!(run(&cases[..1], "", false));
        assert!(!run(&cases, "", false));
        assert!(run(&cases, "good", false));
    }

    #[test]
    fn a_fault_of_the_emulator_gets_one_more_chance() {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        const DEATH: &str = "QEMU said:\nx.c:1: iotlb_to_section: Assertion `a < b' failed.";
        let silent = || {
            Ok(Err(
                "a\nThe script ended with timed out. End of its output:".into(),
            ))
        };
        let once = case("once", false, || {
            match RUNS.fetch_add(1, Ordering::Relaxed) {
                0 => Ok(Err(DEATH.into())),
                _ => Ok(Ok(())),
            }
        });
        assert!(run(&[once], "", false));
        assert_eq!(RUNS.load(Ordering::Relaxed), 2);
        assert!(!run(&[case("always", false, silent)], "", false));
        assert_eq!(fault("QEMU said:\nhw_error"), None);
    }

    #[test]
    fn a_panic_is_a_failure() {
        assert!(!run(
            &[case("bad", false, || panic!("on purpose"))],
            "",
            false
        ));
    }

    #[test]
    fn long_cases_wait_to_be_asked_and_nothing_run_is_no_success() {
        let cases = [case("slow", true, || Ok(Ok(())))];
        assert!(!run(&cases, "", false));
        assert!(run(&cases, "", true));
        assert!(!run(&cases, "other", true));
    }
}
