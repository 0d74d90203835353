// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Numbers and names in readable form.

use address::Bdf;

/// Bytes for a person: in the largest unit of which they are a whole number.
pub(crate) fn size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} bytes")
}

/// The names of functions.
pub(crate) fn names(list: &[Bdf], between: &str) -> String {
    let names: Vec<_> = list.iter().map(Bdf::to_string).collect();
    names.join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_whole_units() {
        assert_eq!(size(1 << 30), "1 GiB");
        assert_eq!(size(3 << 19), "1536 KiB");
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(5), "5 bytes");
    }
}
