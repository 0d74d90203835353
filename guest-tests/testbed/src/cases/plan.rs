// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `pinvisor plan` on fragmented hugepages: the pages that it chooses beside those that a monitor without a choice
//! would have got, and a guest that runs on them.

use serde_json::Value;

use super::check::Findings;
use super::data::{self, Variant};
use super::script;
use crate::error::Result;
use crate::runner::CaseResult;
use crate::setup::Arch;
use crate::trace;

/// Guest memory in MiB, and hugepages in it.
const MIB: u64 = 256;
const PAGES: u64 = MIB / 2;

/// The pool: 150 singles, and a block that is handed out when they are gone. The guest's kernel fits only there.
const SHAPE: &str = "testbed inside shape --singles 150 --block 64 --block-first -- ";

/// On the shaped pool: a plan without spare pages, two with them, and one as text.
const BEFORE: &str = r#"
cat > /tmp/plans <<'EOF'
plan() {
    pinvisor plan --noiommu --device $TESTBED_BDF_0 --kernel /testbed/kernel --initramfs /testbed/initramfs "$@"
}
say() { echo "testbed: $1=$2"; }
free() { say "free_$1" "$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages)"; }
json() { say "$1_status" $?; say "$1" "$(tr -d '\n' < /tmp/plan)"; free "$1"; }
free before
plan --memory 256M,spare=0 --json > /tmp/plan; json naive
plan --memory 256M --json > /tmp/plan; json first
plan --memory 256M --json > /tmp/plan; json second
plan --memory 256M,spare=1G > /tmp/plan; say text_status $?
cat /tmp/plan; free text
EOF
testbed inside shape --singles 150 --block 64 --block-first -- sh /tmp/plans
"#;

/// The choice has fewer extents, in fewer sections, and makes room for a kernel that had none;
/// planning gives all pages back; the guest that runs on the choice moves data right, and its
/// memory is where the plan has it.
pub fn chosen_memory() -> Result<CaseResult> {
    let (outcome, mut findings) = data::run(
        Arch::X86_64,
        &Variant {
            seed: 5,
            machine: |machine| machine.hugepages_2m(460),
            wrapper: SHAPE,
            memory: "256M",
            mib: MIB,
            before: BEFORE,
            ..data::PLAIN
        },
    )?;
    let facts = script::facts(&outcome.output);
    for key in ["free_naive", "free_first", "free_second", "free_text"] {
        let free = facts.get(key).copied();
        findings.expect_eq(key, free, facts.get("free_before").copied());
    }
    for (key, wanted) in [
        ("naive_status", "4"),
        ("first_status", "0"),
        ("second_status", "0"),
        ("text_status", "0"),
    ] {
        let found = facts.get(key).copied();
        findings.expect_eq(key, found, Some(wanted));
    }
    let plan = |key: &str| {
        let text = facts.get(key).copied().unwrap_or_default();
        serde_json::from_str(text).unwrap_or(Value::Null)
    };
    let chosen = plan("first");
    judge(&mut findings, &plan("naive"), &chosen);
    let ran = trace::extents(&outcome.output).len() as u64;
    let naive = number(&chosen, "/choice/naive/extents");
    findings.expect(
        Some(ran) < naive,
        format!("the run had {ran} extents, without a choice it were {naive:?}"),
    );
    println!("    {}", summary(&chosen));
    Ok(findings.into_result(&outcome))
}

fn number(plan: &Value, path: &str) -> Option<u64> {
    plan.pointer(path).and_then(Value::as_u64)
}

/// Two plans of the same memory, without spare pages and with them.
fn judge(findings: &mut Findings, naive: &Value, chosen: &Value) {
    for (path, wanted) in [
        ("/format", 1),
        ("/memory/length", MIB << 20),
        ("/choice/kept", PAGES),
    ] {
        findings.expect_eq(path, number(naive, path), Some(wanted));
        findings.expect_eq(path, number(chosen, path), Some(wanted));
    }
    let pinned = [naive, chosen].map(|plan| number(plan, "/choice/pinned"));
    findings.expect_eq(
        "pages pinned without spare ones, and with them",
        pinned,
        [Some(PAGES), Some(PAGES + PAGES / 2)],
    );
    for what in ["extents", "sections", "memmap"] {
        let [before, after] =
            ["naive", "chosen"].map(|which| number(chosen, &format!("/choice/{which}/{what}")));
        findings.expect(
            after.is_some() && after < before,
            format!("{what}: {before:?} without a choice, {after:?} with one"),
        );
        let cost = format!("/cost/{what}");
        findings.expect_eq("cost of the layout", number(chosen, &cost), after);
        findings.expect_eq("cost without a choice", number(naive, &cost), before);
    }
    let error = naive["error"].as_str().unwrap_or_default();
    findings.expect(
        error.contains("too fragmented"),
        format!("without spare pages: {error:?}"),
    );
    findings.expect_eq("error", &chosen["error"], &Value::Null);
    let extents = chosen["extents"].as_array().into_iter().flatten();
    let total: u64 = extents.filter_map(|extent| extent["length"].as_u64()).sum();
    findings.expect_eq("bytes in extents", total, MIB << 20);
    let mut places = chosen["places"].as_array().into_iter().flatten();
    findings.expect(
        places.any(|place| place["kind"] == "kernel"),
        "the kernel has no place",
    );
}

fn summary(plan: &Value) -> String {
    let change = |what: &str| {
        let of = |which: &str| number(plan, &format!("/choice/{which}/{what}")).unwrap_or(0);
        format!("{what} {} -> {}", of("naive"), of("chosen"))
    };
    ["extents", "sections", "memmap", "page_tables"]
        .map(change)
        .join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::machine::{Outcome, Status};

    fn plan(pinned: u64, extents: u64, error: &Value) -> Value {
        let cost =
            |extents: u64| json!({"extents": extents, "sections": extents, "memmap": extents});
        json!({
            "format": 1,
            "memory": {"length": MIB << 20},
            "choice": {"pinned": pinned, "kept": PAGES, "naive": cost(9), "chosen": cost(extents)},
            "cost": cost(extents),
            "extents": [{"length": MIB << 20}],
            "places": [{"kind": "kernel"}],
            "error": error,
        })
    }

    fn passes(naive: &Value, chosen: &Value) -> bool {
        let mut findings = Findings::default();
        judge(&mut findings, naive, chosen);
        let outcome = Outcome {
            status: Status::Exited(0),
            output: String::new(),
            console: String::new(),
            trace: String::new(),
        };
        findings.into_result(&outcome).is_ok()
    }

    #[test]
    fn a_choice_must_be_better() {
        let naive = plan(PAGES, 9, &json!("memory is too fragmented"));
        let spare = PAGES + PAGES / 2;
        assert!(passes(&naive, &plan(spare, 8, &Value::Null)));
        assert!(!passes(&naive, &plan(spare, 9, &Value::Null)));
        assert!(!passes(&naive, &plan(PAGES, 8, &Value::Null)));
        assert!(!passes(&naive, &plan(spare, 8, &json!("bad"))));
        assert!(!passes(
            &plan(PAGES, 9, &Value::Null),
            &plan(spare, 8, &Value::Null)
        ));
        assert!(!passes(&Value::Null, &Value::Null));
    }
}
