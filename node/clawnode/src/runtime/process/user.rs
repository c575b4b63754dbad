//! The user that a workload runs as.

use std::fs;

/// Numeric user and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Why a user cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UserError {
    #[error("user {user:?} is not known on this host")]
    Unknown { user: String },
    #[error("user {user:?} needs an agent that runs as root")]
    NotPermitted { user: String },
}

/// Finds the account of a name, a uid or a `uid:gid`.
pub(super) fn find(user: &str) -> Result<Account, UserError> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    find_in(&passwd, user).ok_or_else(|| UserError::Unknown { user: user.to_owned() })
}

fn find_in(passwd: &str, user: &str) -> Option<Account> {
    if let Some((uid, gid)) = user.split_once(':') {
        return Some(Account { uid: uid.parse().ok()?, gid: gid.parse().ok()? });
    }
    let accounts = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let account = Account { uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? };
        Some((name, account))
    });
    let uid: Option<u32> = user.parse().ok();
    let known = accounts.into_iter().find(|(name, account)| *name == user || Some(account.uid) == uid);
    // A uid without an account gets the group of the same number.
    known.map(|(_, account)| account).or(uid.map(|uid| Account { uid, gid: uid }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_uids_and_pairs_are_found() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
        assert_eq!(find_in(passwd, "app"), Some(Account { uid: 1000, gid: 1001 }));
        assert_eq!(find_in(passwd, "1000"), Some(Account { uid: 1000, gid: 1001 }));
        assert_eq!(find_in(passwd, "7"), Some(Account { uid: 7, gid: 7 }));
        assert_eq!(find_in(passwd, "7:8"), Some(Account { uid: 7, gid: 8 }));
        assert_eq!(find_in(passwd, "nobody-here"), None);
    }
}
