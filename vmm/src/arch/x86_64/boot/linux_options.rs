// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Options of Linux that matter to this machine: those with which it cannot boot here, and the frequency of the TSC.

use std::borrow::Cow;

use crate::arch::params::ParamsError;
use crate::boot::command_line::{self, options};

/// Words with which Linux does not boot here, each with a value or with any, and why.
const UNBOOTABLE: &[(&str, Option<&str>, &str)] = &[
    ("acpi", Some("off"), NO_ACPI),
    ("noapic", None, NO_IO_APIC),
    // Both turn the I/O APIC off, too (arch/x86/kernel/smpboot.c, `arch_disable_smp_support`).
    ("nosmp", None, NO_IO_APIC),
    ("maxcpus", Some("0"), NO_IO_APIC),
    ("nolapic", None, NO_LOCAL_APIC),
    ("disableapic", None, NO_LOCAL_APIC),
];
const NO_ACPI: &str = "only ACPI describes its interrupt controllers, CPUs and power switch";
const NO_IO_APIC: &str = "its devices' interrupts use the I/O APIC";
const NO_LOCAL_APIC: &str = "all its interrupts use the local APIC";

/// What keeps Linux from using KVM's clock, which reports the TSC's frequency.
const WITHOUT_KVM_CLOCK: [&str; 2] = ["no_kvmclock", "nopv"];
/// The option for the TSC's frequency in kHz.
const TSC_FREQUENCY: &str = "tsc_early_khz";

/// Refuses a command line with which Linux would hang before it prints why.
///
/// # Errors
/// [`ParamsError::Unbootable`]
pub fn check(line: &str) -> Result<(), ParamsError> {
    for option in options(line) {
        let found = UNBOOTABLE.iter().find(|(name, value, _)| {
            option.name == *name && (value.is_none() || *value == option.value)
        });
        if let Some((_, _, reason)) = found {
            return Err(ParamsError::Unbootable {
                word: option.text.to_owned(),
                reason,
            });
        }
    }
    Ok(())
}

/// `line`, and how fast the TSC runs if Linux will not ask KVM. It could measure it with the timer that
/// is there, but not where each access to that takes long, as on a nested host.
pub fn with_tsc_frequency(line: &str, khz: Option<u32>) -> Cow<'_, str> {
    let has = |names: &[&str]| options(line).any(|option| names.contains(&option.name.as_ref()));
    match khz {
        Some(khz) if has(&WITHOUT_KVM_CLOCK) && !has(&[TSC_FREQUENCY]) => {
            log::info!(
                "{TSC_FREQUENCY}={khz} is added to the command line, because KVM's clock is not \
                 used"
            );
            command_line::with_option(line, TSC_FREQUENCY, &khz.to_string())
        }
        _ => line.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_which_linux_hangs_are_refused_by_name() {
        for (line, refused) in [
            ("console=ttyS0 acpi=off quiet", "acpi=off"),
            ("noapic", "noapic"),
            ("noapic=1", "noapic=1"),
            ("nosmp", "nosmp"),
            ("maxcpus=0", "maxcpus=0"),
            ("nolapic", "nolapic"),
            ("\"nolapic\"", "\"nolapic\""),
            ("disableapic", "disableapic"),
        ] {
            let Err(ParamsError::Unbootable { word, reason }) = check(line) else {
                panic!("{line} was taken");
            };
            assert_eq!(word, refused);
            assert!(
                reason.contains("APIC") || reason.contains("ACPI"),
                "{reason}"
            );
        }
        for taken in [
            "",
            "acpi=force acpi=noirq pci=noacpi nolapic_timer noapictimer maxcpus=1 maxcpus=10 lapic noapicx xnoapic",
            "quiet -- noapic",
            "note=\"without noapic\"",
            "acpi",
        ] {
            assert!(check(taken).is_ok(), "{taken}");
        }
    }

    #[test]
    fn the_frequency_is_told_to_those_who_will_not_ask() {
        let told = |line| with_tsc_frequency(line, Some(2_400_000)).into_owned();
        assert_eq!(told("quiet"), "quiet");
        assert_eq!(
            told("no-kvmclock quiet -- x"),
            "no-kvmclock quiet tsc_early_khz=2400000 -- x"
        );
        assert_eq!(told("nopv"), "nopv tsc_early_khz=2400000");
        assert_eq!(told("nopv tsc_early_khz=1"), "nopv tsc_early_khz=1");
        assert_eq!(told("-- no-kvmclock"), "-- no-kvmclock");
        assert_eq!(with_tsc_frequency("nopv", None), "nopv");
    }
}
