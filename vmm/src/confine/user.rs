// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The user that an option names.

use std::ffi::CString;

use nix::unistd::{self, Gid, Uid, getgrouplist};

use crate::config::UserName;

/// A user, with a group and other groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Numbers of all groups that the user is in; empty if the user is not known by name.
    pub groups: Vec<u32>,
}

/// There is no such user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchUser {
    /// As given.
    pub user: String,
    /// What is wrong.
    pub reason: String,
}

impl User {
    /// Looks `user` up.
    ///
    /// # Errors
    /// [`NoSuchUser`], also if the list of users cannot be read.
    pub fn find(user: &UserName) -> Result<Self, NoSuchUser> {
        let (shown, found, group) = match user {
            UserName::Number(uid, group) => {
                let found = unistd::User::from_uid(Uid::from_raw(*uid));
                (uid.to_string(), found, *group)
            }
            UserName::Name(name) => (name.clone(), unistd::User::from_name(name), None),
        };
        let failed = |reason: &str| NoSuchUser {
            user: shown.clone(),
            reason: reason.to_owned(),
        };
        match (found, user) {
            (Ok(Some(found)), _) => {
                let gid = group.map_or(found.gid, Gid::from_raw);
                let name = CString::new(found.name).map_err(|_| failed("its name has a NUL"))?;
                let groups = getgrouplist(&name, gid).map_err(|errno| failed(errno.desc()))?;
                Ok(Self {
                    uid: found.uid.as_raw(),
                    gid: gid.as_raw(),
                    groups: groups.into_iter().map(Gid::as_raw).collect(),
                })
            }
            (_, UserName::Number(uid, Some(gid))) => Ok(Self {
                uid: *uid,
                gid: *gid,
                groups: Vec::new(),
            }),
            (Ok(None), _) => Err(failed("there is no such user")),
            (Err(errno), _) => Err(failed(errno.desc())),
        }
    }

    /// The same user, in no other group.
    #[must_use]
    pub fn alone(self) -> Self {
        Self {
            groups: Vec::new(),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_number_or_refused() {
        let find = |text: &str| User::find(&text.parse().unwrap());
        let root = find("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0), "{root:?}");
        assert_eq!(find("0").unwrap(), root);
        let in_another = find("0:7").unwrap();
        assert_eq!((in_another.uid, in_another.gid), (0, 7));
        assert!(in_another.groups.contains(&7));
        assert_eq!(in_another.alone().groups, [0; 0]);
        let numbers = User {
            uid: 4_000_000,
            gid: 7,
            groups: Vec::new(),
        };
        assert_eq!(find("4000000:7").unwrap(), numbers);
        for unknown in ["no-such-user", "4000000"] {
            let error = find(unknown).unwrap_err();
            assert_eq!(error.user, unknown);
            assert_eq!(error.reason, "there is no such user");
        }
    }
}
