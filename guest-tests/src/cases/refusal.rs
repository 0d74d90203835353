//! What `pinvisor` refuses, with which words and which status.

use super::check::Findings;
use super::rig::Rig;
use super::script::{self, PRELUDE};
use crate::error::Result;
use crate::machine::{Outcome, Status};
use crate::runner::CaseResult;
use crate::setup::{self, Flavour};

/// One refusal.
#[derive(Debug)]
struct Refusal {
    name: &'static str,
    /// Script lines that bring it about.
    before: &'static str,
    /// Words before `pinvisor`.
    wrapper: &'static str,
    /// Arguments of `pinvisor run`; those left out are the good ones.
    arguments: &'static str,
    /// Script lines that take `before` back.
    after: &'static str,
    status: &'static str,
    /// What the message says, all of it, in any order.
    says: &'static [&'static str],
}

const GOOD: Refusal = Refusal {
    name: "",
    before: "",
    wrapper: "",
    arguments: "",
    after: "",
    status: "",
    says: &[],
};

const BY_STATE: &[Refusal] = &[
    Refusal {
        name: "not-bound",
        status: "3",
        says: &["$BDF", "vfio-pci"],
        ..GOOD
    },
    Refusal {
        name: "no-iommufd",
        before: "testbed-bind $TESTBED_BDF_0\nmv /dev/iommu /dev/iommu.away\n",
        after: "mv /dev/iommu.away /dev/iommu\n",
        status: "2",
        says: &["/dev/iommu"],
        ..GOOD
    },
    Refusal {
        name: "kernel-not-above-4g",
        // xloadflags, bit 1: the kernel can be loaded above 4 GiB (Linux Documentation/arch/x86/boot.rst).
        // With 6 GiB of memory all hugepages are above.
        before: "cp /testbed/kernel /tmp/low\nprintf '\\1' | dd of=/tmp/low bs=1 seek=566 conv=notrunc status=none\n",
        arguments: "--kernel /tmp/low",
        status: "4",
        says: &["/tmp/low", "above 4 GiB"],
        ..GOOD
    },
    Refusal {
        name: "not-accepted",
        arguments: "--noiommu=no",
        status: "1",
        says: &["$BDF", "--noiommu", "all memory"],
        ..GOOD
    },
    Refusal {
        name: "no-rawio",
        wrapper: "setpriv --bounding-set=-sys_rawio --inh-caps=-sys_rawio ",
        status: "3",
        says: &["CAP_SYS_RAWIO"],
        ..GOOD
    },
    Refusal {
        name: "too-few-hugepages",
        arguments: "--memory 1G",
        status: "4",
        says: &[
            "512",
            "150",
            "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
        ],
        ..GOOD
    },
    Refusal {
        name: "fragmented",
        wrapper: "testbed inside shape --singles 60 --block 4 -- ",
        arguments: "--memory 120M",
        status: "4",
        says: &["fragmented", "largest", "in one piece", "hugepages=N"],
        ..GOOD
    },
];

const BY_FILE: &[Refusal] = &[
    Refusal {
        name: "kernel-missing",
        arguments: "--kernel /nowhere",
        status: "1",
        says: &["/nowhere"],
        ..GOOD
    },
    Refusal {
        name: "kernel-truncated",
        before: "head -c 3000000 /testbed/kernel > /tmp/short\n",
        arguments: "--kernel /tmp/short",
        status: "1",
        says: &["/tmp/short", "truncated"],
        ..GOOD
    },
    Refusal {
        name: "kernel-not-bzimage",
        before: "head -c 3000000 /dev/urandom > /tmp/noise\n",
        arguments: "--kernel /tmp/noise",
        status: "1",
        says: &["/tmp/noise", "bzImage"],
        ..GOOD
    },
    Refusal {
        name: "initramfs-missing",
        arguments: "--initramfs /nowhere",
        status: "1",
        says: &["/nowhere"],
        ..GOOD
    },
];

const BY_KERNEL: &[Refusal] = &[Refusal {
    name: "no-noiommu",
    status: "2",
    says: &["$BDF", "vfio-pci", "CONFIG_VFIO_NOIOMMU", "7.3"],
    ..GOOD
}];

/// Refusals for the state of the machine or for files, one after the other in one boot.
pub fn by_state_and_files() -> Result<CaseResult> {
    run(Flavour::Groups, BY_FILE.iter().chain(BY_STATE))
}

/// A kernel that has no noiommu mode, hence no `IOMMU_IOAS_NOIOMMU_GET_PA`.
pub fn kernel_without_noiommu() -> Result<CaseResult> {
    run(Flavour::NoNoiommu, BY_KERNEL.iter())
}

fn run(
    flavour: Flavour,
    refusals: impl Iterator<Item = &'static Refusal> + Clone,
) -> Result<CaseResult> {
    let rig = Rig::new(8, "")?;
    let machine = rig
        .machine(setup::guest_kernel()?.bzimage())
        .memory("6G")
        .hugepages_2m(150)
        .flavour(flavour);
    let steps: String = refusals.clone().map(step).collect();
    let outcome = machine.run(&[PRELUDE, "say bdf $TESTBED_BDF_0\n", &steps].concat())?;
    let mut findings = Findings::default();
    findings.expect_eq("script", outcome.status, Status::Exited(0));
    for refusal in refusals {
        judge(&mut findings, refusal, &outcome);
    }
    Ok(findings.into_result(&outcome))
}

fn step(refusal: &Refusal) -> String {
    let given = refusal.arguments;
    let unless = |option: &str, good: &str| {
        if given.contains(option) {
            String::new()
        } else {
            format!(" {good}")
        }
    };
    let arguments = [
        if given == "--noiommu=no" {
            String::new()
        } else {
            format!("--noiommu {given}")
        },
        unless("--kernel", "--kernel /testbed/kernel"),
        unless("--memory", "--memory 256M"),
    ]
    .concat();
    let Refusal {
        name,
        before,
        wrapper,
        after,
        ..
    } = refusal;
    format!(
        "{before}echo 'refusal {name}'\n\
         timeout 300 {wrapper}pinvisor run --device $TESTBED_BDF_0 {arguments} < /dev/null 2>&1\n\
         say {name} $?\n{after}"
    )
}

fn judge(findings: &mut Findings, refusal: &Refusal, outcome: &Outcome) {
    let facts = script::facts(&outcome.output);
    let name = refusal.name;
    findings.expect_eq(name, facts.get(name).copied(), Some(refusal.status));
    let words = words_of(name, &outcome.output);
    for part in refusal.says {
        let part = part.replace("$BDF", facts.get("bdf").copied().unwrap_or("no BDF"));
        findings.expect(
            words.contains(&part),
            format!("{name}: `{part}` is not said in: {words}"),
        );
    }
}

/// What was printed between a refusal's name and its status.
fn words_of<'a>(name: &str, output: &'a str) -> &'a str {
    let begin = format!("refusal {name}\n");
    let rest = output.split_once(&begin).map_or("", |(_, rest)| rest);
    rest.split_once(&format!("testbed: {name}="))
        .map_or(rest, |(words, _)| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_status_and_missing_words_are_found() {
        let outcome = |output: &str| Outcome {
            status: Status::Exited(0),
            output: output.into(),
            console: String::new(),
            trace: String::new(),
        };
        let refusal = Refusal {
            name: "x",
            status: "3",
            says: &["$BDF"],
            ..GOOD
        };
        let verdict = |output: &str| {
            let mut findings = Findings::default();
            judge(&mut findings, &refusal, &outcome(output));
            findings.into_result(&outcome(output)).is_ok()
        };
        assert!(verdict(
            "testbed: bdf=0000:01:00.0\nrefusal x\nno 0000:01:00.0\ntestbed: x=3\n"
        ));
        assert!(!verdict(
            "testbed: bdf=0000:01:00.0\nrefusal x\nno 0000:01:00.0\ntestbed: x=0\n"
        ));
        assert!(!verdict(
            "testbed: bdf=0000:01:00.0\nrefusal x\nno\ntestbed: x=3\n0000:01:00.0\n"
        ));
        assert!(!verdict(""));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = BY_STATE
            .iter()
            .chain(BY_FILE)
            .map(|refusal| refusal.name)
            .collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
