//! The first exchange on a connection: who are you, what do we share (DESIGN 2).

use std::time::Duration;

use crate::node::ask::{ANSWER_WAIT, AskError, SEND_WAIT, answer};
use crate::{
    proto::membership::Swarms,
    transport::{Connection, Exchange, TransportError},
    wire::{
        self, CREDENTIALS_MAX, Credential, Hello, Introduction, Message, PROGRAM_BYTES_MAX, PUBLIC_SECRET,
        PeerId, SwarmSecret, TAGS,
    },
};

/// Longest wait for a peer that has connected to say something.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// A connection on which nobody is introduced in this time is closed.
const GREETING_WAIT: Duration = Duration::from_secs(15);

/// Why two nodes have not met.
#[derive(Debug, thiserror::Error)]
pub(super) enum MeetError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("no introduction")]
    Greeting(#[from] AskError),
    #[error("no introduction in time")]
    Late,
    #[error("this node has a bug")]
    Panicked,
}

/// What this node shows of its swarms, as they are when a connection is made.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    me: PeerId,
    boot: [u8; 16],
    /// Newest swarms' secrets with what is shown to whoever knows one.
    swarms: Vec<(Vec<SwarmSecret>, Credential)>,
    /// Whether this node is in the public pool.
    is_public: bool,
    /// Which state of its swarms that is.
    generation: u64,
}

/// What the peer showed.
#[derive(Clone, Debug)]
pub(super) struct Greeted {
    pub(super) boot: [u8; 16],
    pub(super) program: String,
    pub(super) credentials: Vec<Credential>,
    /// Both are in the public pool.
    pub(super) is_public: bool,
    /// Of which state of our swarms it was shown.
    pub(super) generation: u64,
}

impl Greeting {
    pub(super) fn new(me: PeerId, boot: [u8; 16], swarms: &Swarms, is_public: bool, generation: u64) -> Self {
        let shown = swarms.iter().filter_map(|record| {
            let secrets = record.secrets().iter().map(|epoch| epoch.secret.clone()).collect();
            Some((secrets, record.credential()?))
        });
        Self { me, boot, swarms: shown.take(CREDENTIALS_MAX).collect(), is_public, generation }
    }

    /// As the one that dialled.
    ///
    /// # Errors
    /// [`AskError`].
    pub(super) async fn open(&self, connection: &Connection) -> Result<Greeted, AskError> {
        let mut exchange = connection.open().await?;
        send(&mut exchange, &self.hello(connection)).await?;
        let theirs: Hello = answer(&mut exchange, ANSWER_WAIT).await?;
        send(&mut exchange, &self.introduction(connection, &theirs)).await?;
        exchange.finish()?;
        let shown: Introduction = answer(&mut exchange, ANSWER_WAIT).await?;
        let is_public = self.is_public_for(connection, &theirs);
        Ok(greeted(theirs, shown, is_public, self.generation))
    }

    /// As the one that was dialled.
    ///
    /// # Errors
    /// [`AskError`].
    pub(super) async fn accept(&self, connection: &Connection) -> Result<Greeted, AskError> {
        let accepted = tokio::time::timeout(FIRST_WAIT, connection.accept()).await;
        let mut exchange = accepted.map_err(|_| AskError::Nothing)??;
        let theirs: Hello = answer(&mut exchange, FIRST_WAIT).await?;
        send(&mut exchange, &self.hello(connection)).await?;
        let shown: Introduction = answer(&mut exchange, ANSWER_WAIT).await?;
        send(&mut exchange, &self.introduction(connection, &theirs)).await?;
        exchange.finish()?;
        let is_public = self.is_public_for(connection, &theirs);
        Ok(greeted(theirs, shown, is_public, self.generation))
    }

    fn hello(&self, connection: &Connection) -> Hello {
        let exporter = connection.exporter();
        let public = self.is_public.then_some(&PUBLIC_SECRET);
        let secrets = public.into_iter().chain(self.swarms.iter().flat_map(|(secrets, _)| secrets));
        let mut tags: Vec<[u8; 16]> =
            secrets.map(|secret| secret.tag(&exporter, &self.me)).take(TAGS).collect();
        // What fills up must look like what it hides among. Without entropy there would be no connection either.
        while tags.len() < TAGS {
            let mut tag = [0; 16];
            let _ = getrandom::fill(&mut tag);
            tags.push(tag);
        }
        tags.sort_unstable();
        Hello { boot: self.boot, program: env!("CARGO_PKG_VERSION").to_owned(), tags }
    }

    /// Credentials of the swarms whose secret the peer has shown to know, and of no other.
    fn introduction(&self, connection: &Connection, theirs: &Hello) -> Introduction {
        let (exporter, peer) = (connection.exporter(), connection.peer());
        let is_shared = |secret: &SwarmSecret| theirs.tags.contains(&secret.tag(&exporter, &peer));
        let shared = self.swarms.iter().filter(|(secrets, _)| secrets.iter().any(is_shared));
        Introduction { credentials: shared.map(|(_, credential)| credential.clone()).collect() }
    }

    /// Whether both are in the public pool.
    fn is_public_for(&self, connection: &Connection, theirs: &Hello) -> bool {
        let tag = PUBLIC_SECRET.tag(&connection.exporter(), &connection.peer());
        self.is_public && theirs.tags.contains(&tag)
    }
}

fn greeted(hello: Hello, shown: Introduction, is_public: bool, generation: u64) -> Greeted {
    let mut program: String = hello.program.chars().filter(char::is_ascii_graphic).collect();
    program.truncate(PROGRAM_BYTES_MAX);
    // One a swarm: each is checked by signature.
    let mut credentials: Vec<Credential> = Vec::new();
    for credential in shown.credentials.into_iter().take(CREDENTIALS_MAX) {
        if credentials.iter().all(|other| other.founding != credential.founding) {
            credentials.push(credential);
        }
    }
    Greeted { boot: hello.boot, program, credentials, is_public, generation }
}

async fn send<M: Message>(exchange: &mut Exchange, message: &M) -> Result<(), AskError> {
    Ok(exchange.send(&wire::encode(message), M::BYTES_MAX, SEND_WAIT).await?)
}

/// A peer that takes longer than [`GREETING_WAIT`] is let go.
pub(super) async fn in_time(
    met: impl Future<Output = Result<(Connection, Greeted), MeetError>>,
) -> Result<(Connection, Greeted), MeetError> {
    tokio::time::timeout(GREETING_WAIT, met).await.unwrap_or(Err(MeetError::Late))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Founding;

    #[test]
    fn what_is_shown_many_times_is_looked_at_once() {
        let hello = Hello { boot: [1; 16], program: "0.1\u{1b}[31m.0é".repeat(9), tags: Vec::new() };
        let shown = |nonce| Credential {
            founding: Founding {
                founder: PeerId::from_bytes([3; 32]),
                nonce: [nonce; 16],
                name: "home".parse().unwrap(),
            },
            epoch: 0,
            proof: None,
        };
        let mut credentials = vec![shown(1); CREDENTIALS_MAX - 1];
        credentials.push(shown(2));
        credentials.push(shown(3));
        let Greeted { program, credentials, .. } = greeted(hello, Introduction { credentials }, false, 0);
        assert_eq!(credentials, [shown(1), shown(2)]);
        assert!(program.len() <= PROGRAM_BYTES_MAX && !program.contains('\u{1b}'));
    }
}
