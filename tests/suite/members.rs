//! What a member of its swarm gets from a running node, spoken with the library's own transport.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use ed25519_dalek::SigningKey;
use edge::{
    transport::{CloseCode, Closed, Connection, Endpoint, Listen},
    wire::{self, Admitted, Hello, Introduction, JoinRequest, Message, PeerId, TAGS, Ticket},
};

use crate::{edge::Edge, namespace};

const WAIT: Duration = Duration::from_secs(20);
const BYTES_MAX: usize = 1 << 20;

/// Somebody who has the node's ticket.
struct Member {
    me: PeerId,
    endpoint: Endpoint,
    node: PeerId,
    address: SocketAddr,
}

impl Member {
    fn new(seed: u8, node: PeerId, port: u16) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let endpoint = Endpoint::bind(&key, Listen::default()).unwrap();
        let me = PeerId::from_bytes(key.verifying_key().to_bytes());
        Self { me, endpoint, node, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) }
    }

    /// A connection on which both are introduced; as a stranger without `admitted`.
    async fn met(&self, boot: u8, admitted: Option<&Admitted>) -> Connection {
        let connection = loop {
            // It may not listen yet.
            match self.endpoint.dial(self.address, Some(self.node)).await {
                Ok(connection) => break connection,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let mut tags = vec![[7; 16]; TAGS];
        if let Some(admitted) = admitted {
            tags[0] = admitted.secret.tag(&connection.exporter(), &self.me);
        }
        let hello = Hello { boot: [boot; 16], program: "0.0.0".into(), tags };
        let credentials = admitted.iter().map(|admitted| admitted.credential.clone()).collect();
        let mut exchange = connection.open().await.unwrap();
        for frame in [wire::encode(&hello), wire::encode(&Introduction { credentials })] {
            exchange.send(&frame, BYTES_MAX, WAIT).await.unwrap();
            exchange.receive(BYTES_MAX, WAIT).await.unwrap().unwrap();
        }
        connection
    }

    async fn ask<Q: Message, A: Message>(&self, connection: &Connection, question: &Q) -> A {
        let mut exchange = connection.open().await.unwrap();
        exchange.send(&wire::encode(question), BYTES_MAX, WAIT).await.unwrap();
        exchange.finish().unwrap();
        wire::decode(&exchange.receive(BYTES_MAX, WAIT).await.unwrap().unwrap()).unwrap()
    }
}

#[test]
fn a_connection_that_takes_the_place_of_another_is_no_news() {
    namespace::alone("members::a_connection_that_takes_the_place_of_another_is_no_news", || {
        let edge = Edge::new();
        edge.run(["swarm", "create", "home"]).expect(0, &[]);
        let ticket: Ticket =
            edge.run(["swarm", "invite", "home"]).expect(0, &[]).stdout.trim().parse().unwrap();
        let node = edge.run(["id"]).expect(0, &[]).stdout.trim().parse().unwrap();
        let running = edge.start(&["run", "--threads", "1", "--port", "4500", "-v"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let member = Member::new(9, node, 4500);
            let stranger = member.met(1, None).await;
            let request = JoinRequest { swarm: ticket.founding().id(), invite: ticket.invite().clone() };
            let admitted: Admitted = member.ask(&stranger, &request).await;
            let first = member.met(1, Some(&admitted)).await;
            let second = member.met(1, Some(&admitted)).await;
            // Who dialled both has not closed one, so the node does.
            assert_eq!(first.closed().await, Closed::ByPeer(CloseCode::Duplicate));
            let reborn = member.met(2, Some(&admitted)).await;
            assert_eq!(second.closed().await, Closed::ByPeer(CloseCode::Duplicate));
            reborn.close(CloseCode::Leaving);
        });
        running.signal("TERM");
        let ran = running.wait().expect(0, &["giving back"]);
        let told = ran.stderr.matches("peer connected").count();
        assert_eq!(told, 2, "once for each life: {}", ran.stderr);
    });
}
