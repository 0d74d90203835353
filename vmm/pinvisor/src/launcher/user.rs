// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The user who a guest is run as.

use std::ffi::CString;
use std::str::FromStr;

use nix::unistd::{Gid, Uid, User};

use super::error::LaunchError;

/// `NAME|UID[:GID]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName {
    name: String,
    gid: Option<u32>,
}

/// A user, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's number.
    pub uid: Uid,
    /// The number of the group.
    pub gid: Gid,
    /// The name by which other groups are found; `None` if the user has none.
    pub name: Option<CString>,
}

impl FromStr for UserName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, gid) = match text.split_once(':') {
            Some((name, gid)) => {
                let gid = gid.parse().map_err(|_| "the group must be a number")?;
                (name, Some(gid))
            }
            None => (text, None),
        };
        match name.is_empty() || name.contains('\0') {
            true => Err("a name or a number is required"),
            false => Ok(Self {
                name: name.to_owned(),
                gid,
            }),
        }
    }
}

impl UserName {
    /// Looks the user up.
    ///
    /// # Errors
    /// [`LaunchError::User`]: there is none of that name; there is none of that number, and no group is named.
    pub fn find(&self) -> Result<Account, LaunchError> {
        let wrong = |reason: String| LaunchError::User {
            name: self.name.clone(),
            reason,
        };
        let number = self.name.parse().ok().map(Uid::from_raw);
        let found = match number {
            Some(uid) => User::from_uid(uid),
            None => User::from_name(&self.name),
        };
        let found = found.map_err(|errno| wrong(format!("cannot be looked up: {errno}")))?;
        let gid = self.gid.map(Gid::from_raw);
        match (found, number, gid) {
            (Some(user), ..) => Ok(Account {
                uid: user.uid,
                gid: gid.unwrap_or(user.gid),
                name: CString::new(user.name).ok(),
            }),
            (None, Some(uid), Some(gid)) => Ok(Account {
                uid,
                gid,
                name: None,
            }),
            (None, Some(_), None) => Err(wrong("has no group that is known".to_owned())),
            (None, None, _) => Err(wrong("there is no such user".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Result<(u32, u32, bool), String> {
        let name: UserName = text.parse().map_err(str::to_owned)?;
        let account = name.find().map_err(|error| error.to_string())?;
        let numbers = (account.uid.as_raw(), account.gid.as_raw());
        Ok((numbers.0, numbers.1, account.name.is_some()))
    }

    #[test]
    fn a_user_is_named_or_numbered() {
        assert_eq!(found("root"), Ok((0, 0, true)));
        assert_eq!(found("0"), Ok((0, 0, true)));
        assert_eq!(found("root:7"), Ok((0, 7, true)));
        assert_eq!(found("3999999999:5"), Ok((3_999_999_999, 5, false)));
        for (text, reason) in [
            ("no-such-user", "no such user"),
            ("3999999999", "no group"),
            ("root:x", "must be a number"),
            ("", "required"),
            (":5", "required"),
        ] {
            let error = found(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
