//! What a bootstrap address may look like.

use proptest::prelude::*;

use super::*;

fn id() -> String {
    PeerId::from_bytes([7; 32]).to_string()
}

fn parse(place: &str) -> Result<BootstrapAddress, BootstrapError> {
    format!("{}@{place}", id()).parse()
}

#[test]
fn reads_what_it_wrote() {
    let table = [
        ("boot.example.org:4433", Host::Name("boot.example.org".into()), 4433, "boot.example.org:4433"),
        ("boot", Host::Name("boot".into()), BOOTSTRAP_PORT, "boot:23343"),
        ("pi_4.local.", Host::Name("pi_4.local.".into()), BOOTSTRAP_PORT, "pi_4.local.:23343"),
        ("3com.com", Host::Name("3com.com".into()), BOOTSTRAP_PORT, "3com.com:23343"),
        ("10.0.0.7:1", Host::Ip("10.0.0.7".parse().unwrap()), 1, "10.0.0.7:1"),
        ("10.0.0.7", Host::Ip("10.0.0.7".parse().unwrap()), BOOTSTRAP_PORT, "10.0.0.7:23343"),
        ("[fd00::1]:65535", Host::Ip("fd00::1".parse().unwrap()), 65535, "[fd00::1]:65535"),
        ("[FD00:0::1]", Host::Ip("fd00::1".parse().unwrap()), BOOTSTRAP_PORT, "[fd00::1]:23343"),
    ];
    for (text, host, port, shown) in table {
        let address = parse(text).unwrap();
        assert_eq!(address, BootstrapAddress { peer: PeerId::from_bytes([7; 32]), host, port }, "{text}");
        assert_eq!(address.to_string(), format!("{}@{shown}", id()));
        assert_eq!(address.to_string().parse(), Ok(address));
    }
}

#[test]
fn errors_name_what_is_wrong() {
    assert_eq!(
        "boot.example.org:4433".parse::<BootstrapAddress>().unwrap_err().to_string(),
        "`boot.example.org:4433` has no `@`: a bootstrap address is ID@HOST or ID@HOST:PORT"
    );
    let short = "abc@boot".parse::<BootstrapAddress>().unwrap_err();
    assert_eq!(short.to_string(), "`abc`, before the `@`, is no peer id");
    assert!(matches!(short, BootstrapError::Peer { text, .. } if text == "abc"));
    let long = "a".repeat(64);
    let hosts = [
        ("", "it is empty"),
        (":4433", "it is empty"),
        ("fd00::1", "an IPv6 address stands in `[` and `]`"),
        ("fd00::1:4433", "an IPv6 address stands in `[` and `]`"),
        ("[fd00::1", "its `[` is not closed"),
        ("[10.0.0.7]:1", "in `[` and `]` stands no IPv6 address"),
        ("[fe80::1%eth0]:1", "in `[` and `]` stands no IPv6 address"),
        ("[fd00::1]4433", "something but a port follows its `]`"),
        ("a..b", "a part of its name is empty, or begins or ends with `-`"),
        ("-a.b", "a part of its name is empty, or begins or ends with `-`"),
        (".", "a part of its name is empty, or begins or ends with `-`"),
        ("a b", "a name has only a-z, 0-9, `-`, `_` and `.`"),
        ("a/b", "a name has only a-z, 0-9, `-`, `_` and `.`"),
        ("me@b", "a name has only a-z, 0-9, `-`, `_` and `.`"),
        ("bücher.example", "a name has only a-z, 0-9, `-`, `_` and `.`"),
        (&long, "a name has at most 253 characters, and 63 between two dots"),
        ("300.1.1.1", "it ends in a number but is no IPv4 address"),
        ("10.1", "it ends in a number but is no IPv4 address"),
        ("0x7f.0x1", "it ends in a number but is no IPv4 address"),
        ("2130706433", "it ends in a number but is no IPv4 address"),
    ];
    for (host, says) in hosts {
        match parse(host) {
            Err(BootstrapError::Host { wrong, .. }) => assert_eq!(wrong, says, "{host}"),
            other => panic!("{host}: {other:?}"),
        }
    }
    for port in ["", "0", "65536", "-1", "+80", "x", " 1", "4433 "] {
        let error = parse(&format!("boot:{port}")).unwrap_err();
        assert_eq!(error, BootstrapError::Port { port: port.into() });
        assert_eq!(parse(&format!("[::1]:{port}")), Err(error));
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>(), place in "[a-f0-9:.@\\[\\]x-]{0,30}") {
        let _ = text.parse::<BootstrapAddress>();
        if let Ok(address) = parse(&place) {
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }
}

fn resolve(place: &str) -> Result<Vec<SocketAddr>, DiscoveryError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(parse(place).unwrap().resolve())
}

#[test]
fn names_and_addresses_resolve() {
    assert_eq!(resolve("10.0.0.7:9").unwrap(), ["10.0.0.7:9".parse().unwrap()]);
    assert_eq!(resolve("[::1]:9").unwrap(), ["[::1]:9".parse().unwrap()]);
    assert_eq!(resolve("[::ffff:10.0.0.7]:9").unwrap(), ["10.0.0.7:9".parse().unwrap()]);
    let localhost = resolve("localhost:9").unwrap();
    assert!(localhost.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 9), "{localhost:?}");
    assert!(!localhost.is_empty() && localhost.len() <= RESOLVED_MAX);
}

#[test]
fn a_host_that_leads_nowhere_is_named() {
    // RFC 6761: no resolver knows a name under `.invalid`.
    let error = resolve("nowhere.invalid").unwrap_err();
    assert!(matches!(&error, DiscoveryError::Lookup { host, .. } if host == "nowhere.invalid"), "{error}");
    assert!(error.to_string().contains("`nowhere.invalid`"), "{error}");
    for place in ["0.0.0.0", "[::]", "224.0.0.251", "[ff02::fb]", "255.255.255.255", "[::ffff:0.0.0.0]"] {
        let error = resolve(place).unwrap_err();
        assert!(matches!(error, DiscoveryError::NoAddress { .. }), "{place}: {error}");
    }
}

#[test]
fn a_resolver_that_names_hundreds_is_cut_short() {
    let many = (0..=255).map(|n| SocketAddr::new([10, 0, 0, n].into(), 9));
    assert_eq!(dialable(many.clone().chain(many), "many").unwrap().len(), RESOLVED_MAX);
}
