// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which user `--jail-user` names.

use nix::unistd;

use super::error::ConfineError;
use super::privilege::User;
use crate::config::JailUser;

/// Looks the user up.
///
/// # Errors
/// [`ConfineError::JailUser`]
pub fn look_up(user: &JailUser) -> Result<User, ConfineError> {
    let (shown, found) = match user {
        JailUser::Number(uid, Some(gid)) => {
            return Ok(User {
                uid: *uid,
                gid: *gid,
            });
        }
        JailUser::Number(uid, None) => {
            let found = unistd::User::from_uid(unistd::Uid::from_raw(*uid));
            (uid.to_string(), found)
        }
        JailUser::Name(name) => (name.clone(), unistd::User::from_name(name)),
    };
    let failed = |reason| ConfineError::JailUser {
        user: shown,
        reason,
    };
    match found {
        Ok(Some(found)) => Ok(User {
            uid: found.uid.as_raw(),
            gid: found.gid.as_raw(),
        }),
        Ok(None) => Err(failed("there is no such user".into())),
        Err(errno) => Err(failed(errno.desc().into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_number_or_refused() {
        let look_up = |text: &str| look_up(&text.parse().unwrap());
        let root = User { uid: 0, gid: 0 };
        assert_eq!(look_up("root").unwrap(), root);
        assert_eq!(look_up("0").unwrap(), root);
        let numbers = User {
            uid: 4_000_000,
            gid: 7,
        };
        assert_eq!(look_up("4000000:7").unwrap(), numbers);
        for unknown in ["no-such-user", "4000000"] {
            let error = look_up(unknown).unwrap_err().to_string();
            let wanted = format!("--jail-user {unknown}: there is no such user");
            assert_eq!(error, wanted);
        }
    }
}
