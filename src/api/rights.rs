//! Who is at the other end of the socket, and what that user may (DESIGN 9).

use std::fs;

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::net::unix::UCred;

use super::bounded::Bounded;

/// Members of this group may do everything with the system's node.
const GROUP: &str = "edge";

/// Whoever connected, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// User and group; `None` where the kernel does not say.
    ids: Option<(u32, u32)>,
}

impl Connected<IncomingStream<'_, Bounded>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        Self::of(stream.io().peer_cred().ok())
    }
}

impl Caller {
    /// As the kernel says.
    pub(super) fn of(cred: Option<UCred>) -> Self {
        Self { ids: cred.map(|cred| (cred.uid(), cred.gid())) }
    }

    pub(super) fn user(&self) -> Option<u32> {
        self.ids.map(|(user, _)| user)
    }

    /// Whether it may do everything: the node's own user, root, and members of the group.
    pub(super) fn may_all(&self, owner: u32, group: &str) -> bool {
        self.ids.is_some_and(|(user, own_group)| user == 0 || user == owner || is_in(user, own_group, group))
    }
}

/// Who runs this process.
pub(super) fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The line of the group in /etc/group, as it is now; empty without such a group. Names from a directory service are not
/// seen: those users are root's to admit.
pub(super) fn group() -> String {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let line = groups.lines().find(|line| line.split(':').next() == Some(GROUP));
    line.unwrap_or_default().to_owned()
}

fn is_in(user: u32, own_group: u32, group: &str) -> bool {
    let mut fields = group.split(':');
    let id = fields.nth(2).and_then(|id| id.parse().ok());
    if id == Some(own_group) {
        return true;
    }
    let members = fields.next().unwrap_or_default();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    members.split(',').filter(|name| !name.is_empty()).any(|name| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name));
        line.and_then(|line| line.split(':').nth(2)?.parse().ok()) == Some(user)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_what() {
        let caller = |user, group| Caller { ids: Some((user, group)) };
        let group = "edge:x:777:root";
        assert!(caller(0, 0).may_all(500, ""), "root");
        assert!(caller(500, 1).may_all(500, ""), "who runs it");
        assert!(caller(501, 777).may_all(500, group), "whose own group it is");
        assert!(!caller(501, 501).may_all(500, group));
        assert!(!caller(501, 501).may_all(500, ""));
        assert!(is_in(0, 1, group), "by name");
        assert!(!Caller { ids: None }.may_all(500, group));
    }
}
