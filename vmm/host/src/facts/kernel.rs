// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The running kernel: version, configuration, command line, taint, lockdown.

use std::collections::BTreeMap;
use std::fs;

use miniz_oxide::inflate::decompress_to_vec_with_limit;

use crate::sys_root::SysRoot;

/// Most of an unpacked `/proc/config.gz` that is read.
const MAX_CONFIG: usize = 4 << 20;

/// The kernel's release, such as `7.3.4`.
pub(crate) fn release(root: &SysRoot) -> String {
    root.word("proc/sys/kernel/osrelease")
}

/// Major and minor number of a release such as `7.3.4-1~bpo13+1`.
pub(crate) fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The kernel's configuration, by option without `CONFIG_`; `None` if it is nowhere.
pub(crate) fn config(root: &SysRoot) -> Option<(String, BTreeMap<String, String>)> {
    if let Ok(packed) = fs::read(root.path("proc/config.gz"))
        && let Some(text) = unpack(&packed)
    {
        return Some(("/proc/config.gz".to_owned(), options(&text)));
    }
    let name = format!("boot/config-{}", release(root).replace('/', "_"));
    let text = root.text(&name).ok()?;
    Some((format!("/{name}"), options(&text)))
}

/// The text in a gzip file without optional fields: the kernel's build packs its standard input, with
/// `gzip -n` (`cmd_gzip` in scripts/Makefile.lib).
fn unpack(packed: &[u8]) -> Option<String> {
    // Magic, deflate and no flags; then time, extra flags and system, 6 bytes (RFC 1952, section 2.3).
    let deflated = packed.strip_prefix(&[0x1f, 0x8b, 8, 0])?.get(6..)?;
    let text = decompress_to_vec_with_limit(deflated, MAX_CONFIG).ok()?;
    String::from_utf8(text).ok()
}

/// The options of a configuration that have a value.
pub(crate) fn options(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("CONFIG_")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The words of the kernel's command line.
pub(crate) fn command_line(root: &SysRoot) -> Vec<String> {
    let text = root.word("proc/cmdline");
    text.split_whitespace().map(str::to_owned).collect()
}

/// The kernel's taint, or the text that is none.
pub(crate) fn taint(root: &SysRoot) -> Result<u64, String> {
    let word = root.word("proc/sys/kernel/tainted");
    word.parse().map_err(|_| word)
}

/// The mode in which the kernel is locked down, if it is.
pub(crate) fn lockdown(root: &SysRoot) -> Option<String> {
    let text = root.word("sys/kernel/security/lockdown");
    let (_, rest) = text.split_once('[')?;
    let (mode, _) = rest.split_once(']')?;
    (mode != "none").then(|| mode.to_owned())
}
