// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory in more pieces than are safe: refused, with a size that is in fewer.

use super::refusal;
use super::rig::Rig;
use super::step::{STEP, Step};
use crate::error::Result;
use crate::runner::CaseResult;

/// The pool: 150 singles, and a block of 128 MiB; 420 MiB are all but four of them.
macro_rules! shaped {
    ($rest:literal) => {
        concat!(
            "testbed inside shape --singles 150 --block 64 -- pinvisor ",
            $rest,
            " --noiommu --device $TESTBED_BDF_0 --kernel /testbed/off"
        )
    };
}

/// The pool: 300 singles, and the block when they are gone.
macro_rules! searched {
    ($rest:literal) => {
        concat!(
            "testbed inside shape --singles 300 --block 64 --block-first -- pinvisor ",
            $rest,
            " --noiommu --device $TESTBED_BDF_0 --kernel /testbed/off"
        )
    };
}

/// The first device is an NVMe controller.
pub const PIECES: &[Step] = &[
    Step {
        name: "pieces-refused",
        before: "pinvisor bind $TESTBED_BDF_0\n",
        command: concat!(shaped!("run --memory 420M"), " > /tmp/refused"),
        after: "offered=$(sed -n 's/.*--memory \\([0-9]*M\\) needs .*/\\1/p' /tmp/refused)\n",
        status: "4",
        ..STEP
    },
    Step {
        name: "too-many-pieces",
        command: shaped!("run --memory 420M"),
        status: "4",
        error: "too-many-pieces",
        says: &[
            "more than the 127 that are safe",
            // The block and 126 singles.
            "--memory 380M needs no more than 127 pieces",
            "hugepagesz=1G",
            "at boot",
            "pieces=any",
        ],
        ..STEP
    },
    Step {
        name: "pieces-planned",
        command: shaped!("plan --memory 420M"),
        status: "4",
        error: "too-many-pieces",
        says: &["--memory 380M", "this layout"],
        ..STEP
    },
    Step {
        name: "pieces-offered",
        command: shaped!("run --memory $offered"),
        ..STEP
    },
    Step {
        // The block comes out of the pool when all singles have, two more turns than the kernel's place needs.
        name: "pieces-searched",
        command: searched!("-v run --memory 256M"),
        says: &["65 extents instead of 128"],
        ..STEP
    },
    Step {
        name: "pieces-not-searched",
        command: searched!("run --memory 256M,spare=0"),
        status: "4",
        error: "too-many-pieces",
        says: &["--memory 254M needs"],
        ..STEP
    },
    Step {
        name: "pieces-accepted",
        command: shaped!("run --memory 420M,pieces=any"),
        says: &["warn: Guest memory is in"],
        ..STEP
    },
];

/// All of them in one boot.
pub fn too_many() -> Result<CaseResult> {
    let rig = Rig::new(15, "")?;
    let machine = refusal::machine(&rig)?.hugepages_2m(760);
    refusal::run(&machine, &[PIECES])
}
