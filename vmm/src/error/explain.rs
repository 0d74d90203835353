// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What an error means for the user: each error explains itself, beside the code that it belongs to.

use host::Id;

use super::cause::Limits;
use super::exit_code::ExitCode;

/// An error that reaches the user.
pub trait Explain {
    /// All names that [`id`](Self::id) gives to errors of this type's own.
    fn ids() -> Vec<&'static str>
    where
        Self: Sized;

    /// The name of what went wrong, which stays from version to version.
    fn id(&self) -> &'static str;

    /// The exit code of a process that ends with it.
    fn exit_code(&self) -> ExitCode;

    /// What the user can do about it where these limits apply, as far as that is known. What follows from a limit
    /// alone, whatever the error is, is not said here.
    fn hint(&self, limits: Limits) -> Option<String> {
        let _ = limits;
        None
    }

    /// The check that looks for what is missing where these limits apply, if there is one.
    fn check(&self, limits: Limits) -> Option<Id> {
        let _ = limits;
        None
    }
}
