//! Buses that hang, lie, break off, chatter or turn us away.

use super::{
    false_bus::{FalseBus, Manners},
    *,
};

fn try_call(manners: Manners) -> (BusError, Duration) {
    let dir = tempfile::tempdir().unwrap();
    let bus = FalseBus::start(dir.path());
    bus.manners(manners);
    let begun = Instant::now();
    let until = begun + Duration::from_secs(1);
    let call = bus_call("ListSessions", None);
    let opened = Bus::open(&dir.path().join("run/dbus/system_bus_socket"), until);
    let found = opened.and_then(|mut bus| bus.call(&call, until));
    (found.unwrap_err(), begun.elapsed())
}

#[test]
fn every_kind_of_bad_bus_ends_in_an_error_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let until = Instant::now() + Duration::from_secs(1);
    assert_eq!(Bus::open(dir.path(), until).unwrap_err(), BusError::Missing);
    assert_eq!(Bus::open(&dir.path().join("none"), until).unwrap_err(), BusError::Missing);
    assert_eq!(Bus::open(&dir.path().join("n".repeat(200)), until).unwrap_err(), BusError::Missing);

    let oversize = vec![b'l', 2, 0, 1, 0, 0, 0, 8, 1, 0, 0, 0, 0, 0, 0, 0];
    let cases = [
        (Manners::Mute, BusError::Silent),
        (Manners::MuteAfterAuth, BusError::Silent),
        (Manners::Rejects, BusError::Gone),
        (Manners::Cuts(0), BusError::Silent),
        (Manners::Cuts(10), BusError::Silent),
        (Manners::Cuts(40), BusError::Silent),
        (Manners::Says(Vec::new()), BusError::Gone),
        (Manners::Says(vec![b'l', 2, 0]), BusError::Gone),
        (Manners::Says(b"HTTP/1.1 400 Bad Request".to_vec()), BusError::Malformed),
        (Manners::Says(vec![0; 64]), BusError::Malformed),
        (Manners::Says(oversize), BusError::Malformed),
        (Manners::Refuses("org.example.No"), BusError::Refused("org.example.No".into())),
        (Manners::Chatters, BusError::Malformed),
    ];
    for (manners, wanted) in cases {
        let (error, took) = try_call(manners.clone());
        assert_eq!(error, wanted, "{manners:?}");
        assert!(took < Duration::from_millis(1500), "{manners:?} took {took:?}");
    }
}

#[test]
fn a_bus_that_takes_no_connections_does_not_hold_us() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    let begun = Instant::now();
    let until = begun + Duration::from_secs(1);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(connect(&path));
    }
    assert!(held.iter().any(|found| found.as_ref().err() == Some(&BusError::Silent)), "{held:?}");
    assert_eq!(Bus::open(&path, until).unwrap_err(), BusError::Silent);
    assert!(begun.elapsed() < Duration::from_millis(1500));
}

#[test]
fn what_is_wrong_has_a_name_for_the_policy() {
    let refused = |name: &str| BusError::Refused(name.into()).lack();
    assert_eq!(refused("org.freedesktop.DBus.Error.ServiceUnknown"), Lack::Missing);
    assert_eq!(refused("org.freedesktop.DBus.Error.NameHasNoOwner"), Lack::Missing);
    assert_eq!(refused("org.freedesktop.DBus.Error.AccessDenied"), Lack::Broken(Fault::Unreadable));
    assert_eq!(BusError::Silent.lack(), Lack::Broken(Fault::Stale));
    assert_eq!(BusError::Malformed.lack(), NONSENSE);
}
