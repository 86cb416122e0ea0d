//! Real mDNS between real sockets, each test in a network namespace of its own.

use std::{
    collections::BTreeSet,
    fs,
    future::Future,
    io::BufRead,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket},
    pin::pin,
    time::Duration,
};

use edge::discovery::{Announce, DiscoveryError, Interfaces, Mdns, Sighting, Sightings};
use tokio::time::{Instant, timeout};

use crate::{
    forged::{answer, forged, name, node, record},
    namespace::{Part, alone, ip, ip_says, part},
};

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);
const GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5353);

fn run<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(body)
}

/// Label of the node `n`; those from 90 on are forged.
pub(crate) fn label(n: usize) -> String {
    format!("{:016x}", 0xf0f0_0000_0000_0000_u64 + n as u64)
}

fn start(n: usize, interfaces: Interfaces) -> (Mdns, Sightings) {
    let port = 7000 + u16::try_from(n).unwrap();
    Mdns::start(Announce { label: label(n), port }, interfaces).unwrap()
}

async fn next(sightings: &mut Sightings) -> Option<Sighting> {
    timeout(PATIENCE, sightings.next()).await.unwrap()
}

/// Waits until `n` is found, and gives its addresses.
async fn found(sightings: &mut Sightings, n: usize) -> Vec<SocketAddr> {
    loop {
        match next(sightings).await {
            Some(Sighting::Found { label: other, addresses }) if other == label(n) => return addresses,
            Some(_) => {}
            None => panic!("ended before {n} was found"),
        }
    }
}

async fn lost(sightings: &mut Sightings, n: usize) {
    while next(sightings).await.unwrap() != (Sighting::Lost { label: label(n) }) {}
}

#[test]
fn two_nodes_on_loopback_meet_and_part() {
    alone("discovery::two_nodes_on_loopback_meet_and_part", || {
        run(async {
            let (first, mut of_first) = start(1, Interfaces::Lan);
            let began = Instant::now();
            let (second, mut of_second) = start(2, Interfaces::Lan);
            let (at_first, at_second) = tokio::join!(found(&mut of_first, 2), found(&mut of_second, 1));
            let met = began.elapsed();
            println!("  two nodes on loopback met after {met:?}");
            assert!(met < Duration::from_secs(2), "{met:?}");
            assert_eq!(at_first, ["127.0.0.1:7002".parse().unwrap()]);
            assert_eq!(at_second, ["127.0.0.1:7001".parse().unwrap()]);

            let began = Instant::now();
            let ((), parted) = tokio::join!(second.withdraw(), async {
                lost(&mut of_first, 2).await;
                began.elapsed()
            });
            println!("  a goodbye was seen after {parted:?}");
            // RFC 6762 §10.1 lets a goodbye act after one second, counted from its repetition.
            assert!(parted < Duration::from_millis(1600), "{parted:?}");
            assert_eq!(timeout(PATIENCE, async { while of_second.next().await.is_some() {} }).await, Ok(()));

            // One that only drops its announcement says goodbye as well.
            let (third, of_third) = start(3, Interfaces::Loopback);
            found(&mut of_first, 3).await;
            drop((third, of_third));
            let began = Instant::now();
            lost(&mut of_first, 3).await;
            assert!(began.elapsed() < Duration::from_millis(1600), "{:?}", began.elapsed());
            first.withdraw().await;
        });
    });
}

#[test]
fn ten_nodes_on_loopback_all_meet() {
    alone("discovery::ten_nodes_on_loopback_all_meet", || {
        run(async {
            const NODES: usize = 10;
            let began = Instant::now();
            let nodes: Vec<_> = (0..NODES).map(|n| start(n, Interfaces::Lan)).collect();
            let (announcements, sightings): (Vec<_>, Vec<_>) = nodes.into_iter().unzip();
            let mut slowest = Duration::ZERO;
            for (own, mut sightings) in sightings.into_iter().enumerate() {
                let mut missing: BTreeSet<String> = (0..NODES).filter(|n| *n != own).map(label).collect();
                while !missing.is_empty() {
                    match next(&mut sightings).await {
                        Some(Sighting::Found { label, .. }) => {
                            assert!(missing.remove(&label), "twice: {label}")
                        }
                        other => panic!("{other:?}"),
                    }
                }
                slowest = slowest.max(began.elapsed());
            }
            println!("  ten nodes had all met after {slowest:?}");
            assert!(slowest < Duration::from_secs(5), "{slowest:?}");
            for mdns in announcements {
                mdns.withdraw().await;
            }
        });
    });
}

/// IPv6 addresses can be used at once, so that what is measured is not the kernel's waiting.
fn without_waiting_for_addresses() {
    fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
}

/// Waits until the kernel calls a cable plugged in at both ends, which it does some time later.
fn until_plugged_in() {
    let began = std::time::Instant::now();
    while !ip_says("-o link show dev eth0").contains("state UP") {
        assert!(began.elapsed() < PATIENCE, "eth0 does not come up");
    }
}

/// The second node of `two_nodes_on_a_cable_meet`, in the other namespace.
fn at_the_far_end() {
    let mut words = std::io::stdin().lock().lines();
    without_waiting_for_addresses();
    println!("ready");
    words.next();
    for words in ["link set lo up", "addr add 10.9.0.2/24 dev eth0", "link set eth0 up"] {
        ip(words).unwrap();
    }
    until_plugged_in();
    run(async {
        let (mdns, mut sightings) = start(2, Interfaces::Lan);
        // The datagrams of IPv4 and IPv6 come in any order.
        let mut addresses = Vec::new();
        while !addresses.iter().any(SocketAddr::is_ipv4) {
            addresses = found(&mut sightings, 1).await;
        }
        println!("far end found {addresses:?}");
        words.next();
        mdns.withdraw().await;
        println!("far end left");
    });
}

/// Two namespaces, a cable, and a Docker network that must not show.
#[test]
fn two_nodes_on_a_cable_meet() {
    const NAME: &str = "discovery::two_nodes_on_a_cable_meet";
    if part().is_some_and(|part| part == "far") {
        return at_the_far_end();
    }
    alone(NAME, || {
        let mut far = Part::start(NAME, "far", true);
        far.wait_for("ready", PATIENCE);
        without_waiting_for_addresses();
        let cable = format!("link add eth0 type veth peer name eth0 netns {}", far.child.id());
        if let Err(why) = ip(&cable) {
            return println!("skipped: {why}");
        }
        for words in [
            "addr add 10.9.0.1/24 dev eth0",
            "link set eth0 up",
            "link add docker0 type veth peer name veth0123abc",
            "addr add 172.17.0.1/16 dev docker0",
            "link set docker0 up",
            "link set veth0123abc up",
        ] {
            ip(words).unwrap();
        }
        far.tell("go");
        until_plugged_in();
        run(async {
            let began = Instant::now();
            let (mdns, mut sightings) = start(1, Interfaces::Lan);
            let mut addresses = found(&mut sightings, 2).await;
            println!("  two nodes on a cable met after {:?} (with the other's start)", began.elapsed());
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
            // The link-local address comes in a datagram of its own.
            while addresses.len() < 2 {
                addresses = found(&mut sightings, 2).await;
            }
            assert_eq!(addresses[0], "10.9.0.2:7002".parse().unwrap());
            match addresses[1] {
                SocketAddr::V6(v6) => check_link_local(v6),
                other => panic!("{other}"),
            }
            let seen = far.wait_for("far end found ", PATIENCE);
            assert!(seen.contains("10.9.0.1:7001"), "{seen}");
            assert!(!seen.contains("172.17.0.1") && !seen.contains("127.0.0.1"), "{seen}");

            far.tell("leave");
            lost(&mut sightings, 2).await;
            far.wait_for("far end left", PATIENCE);
            mdns.withdraw().await;
        });
    });
}

fn check_link_local(addr: SocketAddrV6) {
    assert!(addr.ip().is_unicast_link_local(), "{addr}");
    assert_ne!(addr.scope_id(), 0, "{addr}");
    UdpSocket::bind("[::]:0").unwrap().send_to(b"edge", addr).unwrap();
}

#[test]
fn where_there_is_no_multicast_it_says_so() {
    alone("discovery::where_there_is_no_multicast_it_says_so", || {
        run(async {
            let announce = || Announce { label: label(1), port: 7 };
            let error = |announce| Mdns::start(announce, Interfaces::Lan).map(|_| ()).unwrap_err();

            let named = Announce { label: "alices-laptop".into(), port: 7 };
            assert!(matches!(error(named), DiscoveryError::Label { .. }));

            // Held without sharing.
            let greedy = [UdpSocket::bind("0.0.0.0:5353"), UdpSocket::bind("[::]:5353")];
            let taken = error(announce());
            assert!(matches!(taken, DiscoveryError::Port { port: 5353, .. }), "{taken}");
            assert_eq!(
                taken.to_string(),
                "mDNS does not work here: another program keeps UDP port 5353 to itself; bootstrap addresses still work"
            );
            drop(greedy);

            ip("link set lo down").unwrap();
            let none = error(announce());
            assert!(matches!(none, DiscoveryError::NoInterface), "{none}");
            // A container's interface is no LAN.
            ip("link add docker0 type veth peer name veth0123abc").unwrap();
            for words in
                ["addr add 172.17.0.1/16 dev docker0", "link set docker0 up", "link set veth0123abc up"]
            {
                ip(words).unwrap();
            }
            assert!(matches!(error(announce()), DiscoveryError::NoInterface));
            ip("link set lo up").unwrap();
            assert_eq!(start(1, Interfaces::Lan).0.withdraw().await, ());
        });
    });
}

/// Whoever asks, mdns-sd or somebody with a socket, hears of the label and a version.
#[test]
fn an_announcement_names_neither_machine_nor_user() {
    alone("discovery::an_announcement_names_neither_machine_nor_user", || {
        run(async {
            let (mdns, mut sightings) = start(1, Interfaces::Lan);
            let asker = asker();
            let (other, _others) = start(2, Interfaces::Lan);
            found(&mut sightings, 2).await;
            let answer = ask(&asker).await;
            let text = String::from_utf8_lossy(&answer).to_lowercase();
            assert!(text.contains(&label(1)) || text.contains(&label(2)), "{text}");
            assert!(text.contains("\u{3}v=1"), "{text}");
            assert_eq!(text.matches('=').count(), 1, "{text}");
            let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_lowercase();
            assert!(machine.len() < 3 || !text.contains(&machine), "{text}");
            for variable in ["USER", "LOGNAME", "HOSTNAME"] {
                let value = std::env::var(variable).unwrap_or_default().to_lowercase();
                assert!(value.len() < 3 || !text.contains(&value), "{variable}: {text}");
            }
            mdns.withdraw().await;
            other.withdraw().await;
        });
    });
}

fn asker() -> tokio::net::UdpSocket {
    let asker = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    asker.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    asker.set_nonblocking(true).unwrap();
    tokio::net::UdpSocket::from_std(asker.into()).unwrap()
}

/// Asks for nodes as a plain DNS client does, and is answered directly (RFC 6762 §6.7). Datagrams are read in
/// their order, so all that was sent before has been read then. One may get lost, so it asks again.
async fn ask(asker: &tokio::net::UdpSocket) -> Vec<u8> {
    const WAIT: Duration = Duration::from_millis(500);
    let mut question = vec![0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    question.extend(name("_edge._udp.local"));
    question.extend([0, 12, 0, 1]);
    let mut answer = vec![0; 9000];
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        asker.send_to(&question, GROUP).await.unwrap();
        if let Ok(bytes) = timeout(WAIT, asker.recv(&mut answer)).await {
            answer.truncate(bytes.unwrap());
            return answer;
        }
        println!("  asked again");
    }
    panic!("nobody answers");
}

#[test]
fn forged_answers_break_nothing() {
    alone("discovery::forged_answers_break_nothing", || {
        run(async {
            let (mdns, mut sightings) = start(1, Interfaces::Lan);
            let forger = asker();
            let mut datagrams = forged();
            let crowd: Vec<IpAddr> = (1..=100).map(|n| Ipv4Addr::new(10, 0, 1, n).into()).collect();
            datagrams.push(node(&label(93), "v.local", &crowd, b"\x03v=1"));
            let questioner = asker();
            let mut crowded = 0;
            for few in datagrams.chunks(8) {
                for datagram in few {
                    forger.send_to(datagram, GROUP).await.unwrap();
                }
                let mut answered = pin!(ask(&questioner));
                loop {
                    tokio::select! {
                        _ = &mut answered => break,
                        sighting = sightings.next() => crowded = crowded.max(judge(sighting)),
                    }
                }
            }
            println!("  {} forged datagrams", datagrams.len());
            let honest = start(2, Interfaces::Lan);
            loop {
                let sighting = next(&mut sightings).await;
                if matches!(&sighting, Some(Sighting::Found { label: other, .. }) if *other == label(2)) {
                    break;
                }
                crowded = crowded.max(judge(sighting));
            }
            assert_eq!(crowded, 8);
            honest.0.withdraw().await;
            lost(&mut sightings, 2).await;
            mdns.withdraw().await;
        });
    });
}

/// What the forged datagrams may at most lead to; how many addresses a node has.
fn judge(sighting: Option<Sighting>) -> usize {
    match sighting.unwrap() {
        Sighting::Found { label: other, addresses } => {
            assert!(!addresses.is_empty() && addresses.len() <= 8, "{addresses:?}");
            assert!(![label(1), label(91), label(92)].contains(&other), "{other}");
            assert!(other.len() == 16 && other.bytes().all(|b| b.is_ascii_hexdigit()), "{other}");
            addresses.len()
        }
        Sighting::Lost { .. } => 0,
    }
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// mdns-sd keeps every answer: these would be 160 MB. It is started anew instead, and finds others again.
#[test]
fn a_flood_of_answers_does_not_stay() {
    alone("discovery::a_flood_of_answers_does_not_stay", || {
        run(async {
            const DATAGRAMS: u32 = 2_000;
            const RECORDS: u32 = 300;
            let (mdns, mut sightings) = start(1, Interfaces::Lan);
            let forger = asker();
            let before = resident_kib();
            let mut pace = tokio::time::interval(Duration::from_millis(5));
            // A machine that is busy makes this longer, not the flood denser.
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            for datagram in 0..DATAGRAMS {
                let host = |n: u32| name(&format!("{:x}.local", datagram * RECORDS + n));
                let records: Vec<_> =
                    (0..RECORDS).map(|n| record(&host(n), 1, u32::MAX, &[10, 0, 0, 1])).collect();
                forger.send_to(&answer(&records), GROUP).await.unwrap();
                // The news are polled meanwhile, and dropped half-way, as a node does.
                tokio::select! {
                    sighting = sightings.next() => panic!("{sighting:?}"),
                    _ = pace.tick() => {}
                }
            }
            let grown = resident_kib().saturating_sub(before) >> 10;
            println!("  {} forged records: {grown} MiB more", DATAGRAMS * RECORDS);
            assert!(grown < 100, "{grown} MiB");
            let (late, _of_late) = start(3, Interfaces::Lan);
            found(&mut sightings, 3).await;
            mdns.withdraw().await;
            late.withdraw().await;
        });
    });
}
