// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How values that have no serialisation of their own are written.

/// Addresses as strings, hexadecimal behind 0x: beyond 2^53 not every reader of JSON keeps a
/// number exact.
pub mod hex {
    use address::{Gpa, Hpa, Iova};
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    /// An address of any kind.
    pub trait Address: Sized {
        /// As a number.
        fn number(&self) -> u64;
        /// From a number.
        fn from_number(number: u64) -> Self;
    }

    macro_rules! addresses {
        ($($name:ident),*) => {$(
            impl Address for $name {
                fn number(&self) -> u64 {
                    self.0
                }
                fn from_number(number: u64) -> Self {
                    Self(number)
                }
            }
        )*};
    }
    addresses!(Gpa, Hpa, Iova);

    pub fn serialize<A: Address, S: Serializer>(address: &A, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:#x}", address.number()))
    }

    pub fn deserialize<'de, A: Address, D: Deserializer<'de>>(from: D) -> Result<A, D::Error> {
        let text = String::deserialize(from)?;
        text.strip_prefix("0x")
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(A::from_number)
            .ok_or_else(|| D::Error::custom("an address is a string that begins with 0x"))
    }
}

/// Values by the names that stress guests use.
pub mod name {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
