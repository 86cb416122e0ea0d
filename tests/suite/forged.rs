//! DNS datagrams made by hand, most of them wrong.

use std::{fmt::Write as _, net::IpAddr};

use crate::discovery::label;

pub(crate) fn name(dotted: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in dotted.split('.') {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}

pub(crate) fn record(owner: &[u8], kind: u16, ttl: u32, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap();
    let parts =
        [owner, &kind.to_be_bytes(), &1_u16.to_be_bytes(), &ttl.to_be_bytes(), &length.to_be_bytes(), value];
    parts.concat()
}

pub(crate) fn answer(records: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(records.len()).unwrap().to_be_bytes();
    let mut out = vec![0, 0, 0x84, 0, 0, 0, count[0], count[1], 0, 0, 0, 0];
    records.iter().for_each(|record| out.extend(record));
    out
}

/// All that makes a node, with whatever names and addresses.
pub(crate) fn node(instance: &str, host: &str, addresses: &[IpAddr], txt: &[u8]) -> Vec<u8> {
    let full = name(&format!("{instance}._edge._udp.local"));
    let mut srv = vec![0, 0, 0, 0, 0, 9];
    srv.extend(name(host));
    let mut records = vec![
        record(&name("_edge._udp.local"), 12, 120, &full),
        record(&full, 33, 120, &srv),
        record(&full, 16, 120, txt),
    ];
    for addr in addresses {
        records.push(match addr {
            IpAddr::V4(v4) => record(&name(host), 1, 120, &v4.octets()),
            IpAddr::V6(v6) => record(&name(host), 28, 120, &v6.octets()),
        });
    }
    answer(&records)
}

/// Malformed datagrams of every kind, then good ones that lie.
pub(crate) fn forged() -> Vec<Vec<u8>> {
    let good = node(&label(90), "x.local", &["10.0.0.1".parse().unwrap()], b"\x03v=1");
    let mut all = vec![vec![], vec![0], vec![0xff; 12], vec![0xff; 8972], vec![0; 8972], vec![0x84; 13]];
    all.extend((0..good.len()).map(|cut| good[..cut].to_vec()));
    for at in 0..good.len() {
        for value in [0x00, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
            let mut wrong = good.clone();
            wrong[at] = value;
            // What still looks like a node must not be taken for one of the test's.
            all.push(String::from_utf8_lossy(&wrong).replace(&label(90), &"g".repeat(16)).into_bytes());
            all.push(wrong);
        }
    }
    // A name that points at itself, two that point at each other, and one far behind the end.
    for pointer in [&[0xc0, 12][..], &[0xc0, 14, 0xc0, 12], &[0xff, 0xff], &[1, b'a', 0xc0, 12]] {
        all.push(answer(&[record(pointer, 12, 120, pointer)]));
    }
    // Counts that promise more than there is.
    let mut many = answer(&[]);
    many[4..12].fill(0xff);
    all.push(many);
    // TXT records whose lengths lie.
    for txt in [&b""[..], b"\xffv=1", b"\x00\x00\x00", b"\x03v=2", b"\x01=", b"\x04v=\xff\xfe"] {
        all.push(node(&label(91), "y.local", &["10.0.0.1".parse().unwrap()], txt));
    }
    let nowhere: Vec<IpAddr> =
        ["224.0.0.1", "0.0.0.0", "255.255.255.255", "::", "ff02::1"].map(|ip| ip.parse().unwrap()).into();
    all.push(node(&label(92), "z.local", &nowhere, b"\x03v=1"));
    let mut long = String::new();
    (0..4).for_each(|_| write!(long, "{}.", "n".repeat(59)).unwrap());
    for instance in
        ["alices-laptop", "\u{0}\u{1}\u{2}", "..", "é", long.trim_end_matches('.'), &"9".repeat(17)]
    {
        let instance = instance.replace("..", "-");
        all.push(node(&instance, "w.local", &["10.0.0.1".parse().unwrap()], b"\x03v=1"));
    }
    all
}
