// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One message of `pinvisor`, and how to provoke it.

use super::check::Findings;
use super::script;
use crate::machine::Outcome;

/// A command on the test machine, what brings about its answer, and the answer.
#[derive(Debug)]
pub struct Step {
    /// Its name, in output and failures.
    pub name: &'static str,
    /// Script lines that bring it about.
    pub before: &'static str,
    /// False results of the kernel for the command: rules of the package `falsify`.
    pub lie: &'static str,
    /// The command.
    pub command: &'static str,
    /// Script lines that take `before` back.
    pub after: &'static str,
    /// The command's status.
    pub status: &'static str,
    /// The name of the error that it ends with, if it ends with one.
    pub error: &'static str,
    /// Lines of `pinvisor check`, each a verdict and a check's name.
    pub shows: &'static [&'static str],
    /// Texts that must all be in the output, in any order; `$BDF` is replaced by the first device.
    pub says: &'static [&'static str],
}

/// A step that does nothing and expects nothing but success.
pub const STEP: Step = Step {
    name: "",
    before: "",
    lie: "",
    command: "",
    after: "",
    status: "0",
    error: "",
    shows: &[],
    says: &[],
};

/// Functions for the steps' scripts.
pub const PRELUDE: &str = "\
fake() {
    mkdir -p /tmp/fake
    copy=/tmp/fake/$(echo \"$1\" | tr / _)
    cat > \"$copy\"
    mount --bind \"$copy\" \"$1\"
}
cover() {
    mkdir -p \"$2\"
    mount --bind \"$2\" \"$1\"
}
cp /testbed/bin/pinvisor /tmp/pinvisor
chmod 755 /tmp /tmp/pinvisor
unprivileged='setpriv --reuid 65534 --regid 65534 --clear-groups /tmp/pinvisor'
unsafe=/sys/module/vfio/parameters/enable_unsafe_noiommu_mode
ready='--noiommu --kernel /testbed/status --memory 64M'
";

impl Step {
    /// The script lines of the step.
    pub fn script(&self) -> String {
        let Self {
            name,
            before,
            lie,
            command,
            after,
            ..
        } = self;
        let preload = match *lie {
            "" => String::new(),
            lie => format!("LD_PRELOAD=/testbed/bin/libfalsify.so FALSIFY='{lie}' "),
        };
        format!(
            "{before}\necho 'step {name}'\n{preload}{command} < /dev/null 2>&1\nsay {name} $?\n{after}\n"
        )
    }

    /// Compares what came out with what is expected.
    pub fn judge(&self, findings: &mut Findings, outcome: &Outcome) {
        let facts = script::facts(&outcome.output);
        let name = self.name;
        let words = words_of(name, &outcome.output);
        findings.expect(
            facts.get(name) == Some(&self.status),
            format!(
                "{name}: status {:?}, expected {}, after: {words}",
                facts.get(name),
                self.status
            ),
        );
        let error = format!("error[{}]: ", self.error);
        findings.expect(
            self.error.is_empty() || words.contains(&error),
            format!("{name}: no {error}in: {words}"),
        );
        for shown in self.shows {
            findings.expect(
                words.lines().any(|line| is_line(line, shown)),
                format!("{name}: no line `{shown}` in: {words}"),
            );
        }
        for part in self.says {
            let part = part.replace("$BDF", facts.get("bdf").copied().unwrap_or("no BDF"));
            findings.expect(
                words.contains(&part),
                format!("{name}: `{part}` is not in: {words}"),
            );
        }
    }
}

/// Whether a line of `pinvisor check` has this verdict and name.
fn is_line(line: &str, shown: &str) -> bool {
    let found = line.split_once(": ").map_or("", |(start, _)| start);
    found.split_whitespace().eq(shown.split_whitespace())
}

/// What was printed between a step's name and its status.
fn words_of<'a>(name: &str, output: &'a str) -> &'a str {
    let begin = format!("step {name}\n");
    let rest = output.split_once(&begin).map_or("", |(_, rest)| rest);
    rest.split_once(&format!("testbed: {name}="))
        .map_or(rest, |(words, _)| words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Status;

    fn verdict(step: &Step, output: &str) -> bool {
        let outcome = Outcome {
            status: Status::Exited(0),
            output: output.into(),
            console: String::new(),
            trace: String::new(),
        };
        let mut findings = Findings::default();
        step.judge(&mut findings, &outcome);
        findings.into_result(&outcome).is_ok()
    }

    #[test]
    fn wrong_status_name_line_or_words_are_found() {
        let step = Step {
            name: "x",
            status: "3",
            error: "not-bound",
            says: &["$BDF"],
            ..STEP
        };
        let right = "testbed: bdf=0000:01:00.0\nstep x\npinvisor: error[not-bound]: 0000:01:00.0\ntestbed: x=3\n";
        assert!(verdict(&step, right));
        for (part, other) in [
            ("x=3", "x=0"),
            ("[not-bound]", "[no-device]"),
            (" 0000:01:00.0\n", "\n"),
            ("step x", "step y"),
        ] {
            assert!(!verdict(&step, &right.replacen(part, other, 1)), "{part}");
        }
        assert!(!verdict(&step, ""));
    }

    #[test]
    fn lines_are_distinguished_by_verdict_and_name() {
        let step = Step {
            name: "x",
            shows: &["OK kvm", "FAIL iommufd"],
            ..STEP
        };
        let output = |text: &str| format!("step x\n{text}testbed: x=0\n");
        assert!(verdict(&step, &output("OK   kvm: y\nFAIL iommufd: z\n")));
        assert!(!verdict(&step, &output("OK   kvm: y\nWARN iommufd: z\n")));
        assert!(!verdict(&step, &output("OK   kvm: FAIL iommufd: z\n")));
    }
}
