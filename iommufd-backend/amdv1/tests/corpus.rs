// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Replays what the fuzzers have found worth keeping, failures of old among it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod bodies;

use std::fs;
use std::path::Path;

fn replay(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut replayed = 0;
    for input in fs::read_dir(corpus.join(target)).unwrap() {
        let path = input.unwrap().path();
        println!("{}", path.display());
        body(&fs::read(path).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 50, "{replayed} inputs");
}

#[test]
fn walk() {
    replay("walk", bodies::scribble);
}

#[test]
fn operations() {
    replay("operations", bodies::operations);
}
