//! Sightings as mdns-sd reports them, right and forged.

use mdns_sd::ServiceInfo;

use super::*;

const OWN: &str = "00000000000000aa";

fn service(label: &str, addresses: &str, port: u16, version: &str) -> ServiceEvent {
    let host = format!("{label}.local.");
    let info = ServiceInfo::new(SERVICE, label, &host, addresses, port, &[("v", version)][..]).unwrap();
    ServiceEvent::ServiceResolved(Box::new(info.as_resolved_service()))
}

fn removed(label: &str) -> ServiceEvent {
    ServiceEvent::ServiceRemoved(SERVICE.to_owned(), full_name(label))
}

fn lost(label: &str) -> Sighting {
    Sighting::Lost { label: label.to_owned() }
}

fn found(label: &str, addresses: &[&str]) -> Sighting {
    let addresses = addresses.iter().map(|addr| addr.parse().unwrap()).collect();
    Sighting::Found { label: label.to_owned(), addresses }
}

fn told(table: &mut Table) -> Vec<Sighting> {
    std::iter::from_fn(|| table.pop()).collect()
}

fn label(n: usize) -> String {
    format!("{n:016x}")
}

#[test]
fn news_are_told_once() {
    let mut table = Table::new(OWN.to_owned());
    let one = label(1);
    table.take(&service(&one, "10.0.0.1", 7, VERSION));
    table.take(&service(&one, "10.0.0.1", 7, VERSION));
    table.take(&service(&one, "10.0.0.1,fd00::1", 7, VERSION));
    table.take(&removed(&one));
    table.take(&removed(&one));
    let expected = [found(&one, &["10.0.0.1:7"]), found(&one, &["10.0.0.1:7", "[fd00::1]:7"]), lost(&one)];
    assert_eq!(told(&mut table), expected);
}

#[test]
fn what_is_not_another_node_is_not_told() {
    let mut table = Table::new(OWN.to_owned());
    table.take(&service(OWN, "10.0.0.1", 7, VERSION));
    table.take(&service(&label(1), "10.0.0.1", 7, "2"));
    table.take(&service(&label(1), "10.0.0.1", 7, ""));
    table.take(&service(&label(1), "10.0.0.1", 0, VERSION));
    // Loopback that did not come by loopback, several nodes at once, none, and a link without its interface.
    for nowhere in ["127.0.0.1", "::1", "224.0.0.251", "255.255.255.255", "0.0.0.0", "::", "fe80::1"] {
        table.take(&service(&label(1), nowhere, 7, VERSION));
    }
    for name in
        ["", "alices-laptop", "00000000000000AA", "00000000000000aaa", "0000.0000000000aa", "é0000000000000"]
    {
        table.take(&service(name, "10.0.0.1", 7, VERSION));
        table.take(&removed(name));
    }
    table.take(&ServiceEvent::ServiceRemoved(SERVICE.to_owned(), SERVICE.to_owned()));
    table.take(&ServiceEvent::ServiceRemoved(SERVICE.to_owned(), "é".repeat(300)));
    assert_eq!(told(&mut table), []);
}

#[test]
fn a_node_without_any_address_left_is_lost() {
    let mut table = Table::new(OWN.to_owned());
    table.take(&service(&label(1), "10.0.0.1", 7, VERSION));
    table.take(&service(&label(1), "127.0.0.1", 7, VERSION));
    assert_eq!(told(&mut table), [found(&label(1), &["10.0.0.1:7"]), lost(&label(1))]);
}

#[test]
fn neither_nodes_nor_addresses_grow_without_bound() {
    let mut table = Table::new(OWN.to_owned());
    let many: Vec<String> = (1..200).map(|n| format!("10.0.0.{n}")).collect();
    for n in 0..SIGHTINGS_MAX + 50 {
        table.take(&service(&label(n + 1000), &many.join(","), 7, VERSION));
    }
    let news = told(&mut table);
    assert_eq!(news.len(), SIGHTINGS_MAX);
    assert!(news.iter().all(|sighting| matches!(sighting,
        Sighting::Found { addresses, .. } if addresses.len() == ADDRESSES_PER_PEER_MAX)));
    // One that goes makes room for another.
    table.take(&removed(&label(1000)));
    table.take(&service(&label(7), "10.0.0.7", 7, VERSION));
    assert_eq!(told(&mut table), [lost(&label(1000)), found(&label(7), &["10.0.0.7:7"])]);
}

#[test]
fn who_does_not_answer_a_new_subscription_is_lost() {
    let mut table = Table::new(OWN.to_owned());
    let search = ServiceEvent::SearchStarted(String::new());
    for n in 1..=3 {
        table.take(&service(&label(n), "10.0.0.1", 7, VERSION));
    }
    assert_eq!(told(&mut table).len(), 3);
    table.begin();
    table.take(&search);
    table.take(&service(&label(1), "10.0.0.1", 7, VERSION));
    table.take(&search);
    table.take(&search);
    table.take(&service(&label(2), "10.0.0.2", 7, VERSION));
    assert_eq!(told(&mut table), [found(&label(2), &["10.0.0.2:7"])]);
    for _ in 0..9 {
        table.take(&search);
    }
    assert_eq!(told(&mut table), [lost(&label(3))]);
}
