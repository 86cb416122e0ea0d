//! Who is logged in, and whether they do anything, as logind knows it.
//!
//! Sessions of class `user` count (and `user-early`, `user-light`): not the greeter, not the manager, not what runs in the
//! background. One on another seat counts as much as one on ours, and so does one that another has switched away from.
//! One that is closing has nobody any more. A locked screen has nobody before it, from the moment at which we see the lock.
//!
//! What `IdleHint` means differs. A desktop sets it itself (GNOME and KDE do, after the wait until the screen goes dark;
//! sway, labwc and other bare compositors never do, unless something like swayidle does it for them). For a terminal logind
//! looks when it was last read from, tells that time at once, and hints after `IdleActionSec`, 30 minutes. On a
//! pseudo-terminal (ssh) the time counts. On a console the hint does: somebody may have typed `startx` there, and X reads
//! its keyboard by another way; that such a session is called idle after 30 minutes, whatever is done in it, we cannot see.
//! Source: org.freedesktop.login1(5); tried against systemd-logind 252.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    dbus::{Bus, BusError, Call, Message},
    terminals::STAMP_GRAIN,
};

/// For all questions of one reading.
const ASK_WAIT: Duration = Duration::from_secs(1);
/// Sessions that are asked. A machine with more of them is in use, whoever they are.
const SESSIONS_MAX: usize = 64;
const LOGIND: &str = "org.freedesktop.login1";
const SESSION: &str = "org.freedesktop.login1.Session";

/// What all sessions say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    /// Sessions that count.
    pub(super) counted: usize,
    /// Somebody does something.
    pub(super) is_used: bool,
    /// Else: when somebody last did, by the monotonic clock; zero where no session counts.
    pub(super) since: Duration,
}

/// One session's properties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    class: String,
    state: String,
    is_idle: bool,
    is_locked: bool,
    idle_since: Duration,
    terminal: String,
}

impl Session {
    /// When somebody last did something, where that can be told.
    fn left(&self) -> Option<Duration> {
        let is_told = self.is_idle || (self.terminal.starts_with("pts/") && !self.idle_since.is_zero());
        is_told.then_some(self.idle_since)
    }

    fn counts(&self) -> bool {
        self.class.starts_with("user") && self.state != "closing"
    }
}

/// Asks logind over a connection that it keeps.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    bus: Option<Bus>,
    /// When we first saw the lock, by the session's object.
    locked: BTreeMap<String, Duration>,
}

impl Sessions {
    /// Asks about every session; `now` is the monotonic clock. Takes at most a second.
    ///
    /// # Errors
    /// [`BusError`].
    pub(super) fn ask(&mut self, socket: &Path, now: Duration) -> Result<Joined, BusError> {
        let until = Instant::now() + ASK_WAIT;
        let kept = self.bus.is_some();
        let mut found = self.try_ask(socket, until);
        if kept && found == Err(BusError::Gone) {
            // The bus was restarted since the last question.
            found = self.try_ask(socket, until);
        }
        Ok(self.join(found?, now))
    }

    fn try_ask(&mut self, socket: &Path, until: Instant) -> Result<BTreeMap<String, Session>, BusError> {
        let mut bus = match self.bus.take() {
            Some(bus) => bus,
            None => Bus::open(socket, until)?,
        };
        let found = ask(&mut bus, until);
        if matches!(found, Ok(_) | Err(BusError::Refused(_))) {
            self.bus = Some(bus);
        }
        found
    }

    fn join(&mut self, sessions: BTreeMap<String, Session>, now: Duration) -> Joined {
        let counted: BTreeMap<String, Session> = sessions.into_iter().filter(|(_, s)| s.counts()).collect();
        self.locked.retain(|path, _| counted.get(path).is_some_and(|session| session.is_locked));
        let mut joined =
            Joined { counted: counted.len(), is_used: counted.len() > SESSIONS_MAX, since: Duration::ZERO };
        for (path, session) in counted {
            let locked = session.is_locked.then(|| *self.locked.entry(path).or_insert(now));
            // A time from the future is from now.
            let left = session.left().map(|left| left.min(now));
            match (locked, left) {
                (None, None) => joined.is_used = true,
                (None, Some(left)) => {
                    joined.is_used |= !session.is_idle && now.saturating_sub(left) < STAMP_GRAIN;
                    joined.since = joined.since.max(left);
                }
                (Some(locked), left) => joined.since = joined.since.max(left.unwrap_or(locked).min(locked)),
            }
        }
        joined
    }
}

fn ask(bus: &mut Bus, until: Instant) -> Result<BTreeMap<String, Session>, BusError> {
    let list = Call {
        destination: LOGIND,
        path: "/org/freedesktop/login1",
        interface: "org.freedesktop.login1.Manager",
        member: "ListSessions",
        argument: None,
    };
    let paths = listed(&bus.call(&list, until)?)?;
    let mut sessions = BTreeMap::new();
    for path in paths {
        let properties = Call {
            destination: LOGIND,
            path: &path,
            interface: "org.freedesktop.DBus.Properties",
            member: "GetAll",
            argument: Some(SESSION),
        };
        match bus.call(&properties, until) {
            Ok(message) => drop(sessions.insert(path, session(&message)?)),
            // It ended between the two questions.
            Err(BusError::Refused(name))
                if name.ends_with(".UnknownObject") || name.ends_with(".NoSuchSession") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sessions)
}

/// `a(susso)`: id, user, user name, seat, object.
fn listed(message: &Message) -> Result<Vec<String>, BusError> {
    if message.signature != "a(susso)" {
        return Err(BusError::Malformed);
    }
    let mut body = message.body();
    let end = body.array(8)?;
    let mut paths = Vec::new();
    // One more than are asked says that there are too many; the bus bounds the message itself.
    while paths.len() <= SESSIONS_MAX && body.more(end, 8)? {
        body.skip("suss")?;
        paths.push(body.string()?.to_owned());
    }
    Ok(paths)
}

/// `a{sv}`. What is missing or of another type is as if it were not said.
fn session(message: &Message) -> Result<Session, BusError> {
    if message.signature != "a{sv}" {
        return Err(BusError::Malformed);
    }
    let mut body = message.body();
    let end = body.array(8)?;
    let mut session = Session::default();
    while body.more(end, 8)? {
        let name = body.string()?;
        let kind = body.signature()?;
        match (name, kind) {
            ("Class", "s") => session.class = body.string()?.to_owned(),
            ("State", "s") => session.state = body.string()?.to_owned(),
            ("TTY", "s") => session.terminal = body.string()?.to_owned(),
            ("IdleHint", "b") => session.is_idle = body.boolean()?,
            ("LockedHint", "b") => session.is_locked = body.boolean()?,
            ("IdleSinceHintMonotonic", "t") => session.idle_since = Duration::from_micros(body.u64()?),
            (_, kind) => body.skip(kind)?,
        }
    }
    Ok(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(class: &str, is_idle: bool, is_locked: bool, idle_since_s: u64) -> Session {
        Session {
            class: class.into(),
            state: "active".into(),
            is_idle,
            is_locked,
            idle_since: Duration::from_secs(idle_since_s),
            terminal: String::new(),
        }
    }

    fn join(sessions: &mut Sessions, all: &[Session], now_s: u64) -> Joined {
        let all = all.iter().enumerate().map(|(n, session)| (n.to_string(), session.clone())).collect();
        sessions.join(all, Duration::from_secs(now_s))
    }

    fn idle(counted: usize, since_s: u64) -> Joined {
        Joined { counted, is_used: false, since: Duration::from_secs(since_s) }
    }

    #[test]
    fn one_busy_session_is_enough_and_only_users_count() {
        let sessions = &mut Sessions::default();
        assert_eq!(join(sessions, &[], 100), idle(0, 0));
        let others = [session("greeter", false, false, 0), session("manager", false, false, 0)];
        assert_eq!(join(sessions, &others, 100), idle(0, 0));
        let mut closing = session("user", false, false, 0);
        closing.state = "closing".into();
        assert_eq!(join(sessions, &[closing], 100), idle(0, 0));
        let mixed = [session("user", true, false, 40), session("user-light", true, false, 60)];
        assert_eq!(join(sessions, &mixed, 100), idle(2, 60), "the last who did anything counts");
        let mixed = [session("user", true, false, 40), session("user", false, false, 0)];
        assert!(join(sessions, &mixed, 100).is_used);
        assert_eq!(
            join(sessions, &[session("user", true, false, 999)], 100),
            idle(1, 100),
            "from the future"
        );
    }

    #[test]
    fn a_locked_screen_has_nobody_from_when_we_see_it() {
        let sessions = &mut Sessions::default();
        let locked = [session("user", false, true, 0)];
        assert_eq!(join(sessions, &locked, 100), idle(1, 100));
        assert_eq!(join(sessions, &locked, 160), idle(1, 100));
        assert_eq!(
            join(sessions, &[session("user", true, true, 30)], 170),
            idle(1, 30),
            "it was idle before"
        );
        assert!(join(sessions, &[session("user", false, false, 0)], 180).is_used);
        assert_eq!(join(sessions, &locked, 200), idle(1, 200), "locked anew");
    }

    #[test]
    fn a_pseudo_terminal_tells_when_it_was_typed_at_and_a_console_only_hints() {
        let sessions = &mut Sessions::default();
        let terminal = |name: &str, is_idle: bool, since_s: u64| Session {
            terminal: name.into(),
            ..session("user", is_idle, false, since_s)
        };
        assert!(join(sessions, &[terminal("pts/0", false, 95)], 100).is_used);
        assert_eq!(join(sessions, &[terminal("pts/0", false, 40)], 100), idle(1, 40));
        assert!(join(sessions, &[terminal("pts/0", false, 0)], 100).is_used, "it does not tell");
        assert!(join(sessions, &[terminal("tty1", false, 40)], 100).is_used);
        assert_eq!(join(sessions, &[terminal("tty1", true, 40)], 100), idle(1, 40));
    }

    #[test]
    fn more_sessions_than_are_asked_are_use() {
        let all = vec![session("user", true, false, 1); SESSIONS_MAX + 1];
        assert!(join(&mut Sessions::default(), &all, 100).is_used);
    }
}
