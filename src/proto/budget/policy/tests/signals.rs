//! Every signal: over its limit, near it, broken, gone.

use super::*;
use crate::proto::budget::{Ceiling, Green, Hours, Sensor};

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::of(Profile::Gentle);
    change(&mut limits);
    limits
}

#[test]
fn heat() {
    let hot = |millicelsius| Reading { temperature: super::heat(millicelsius), ..calm() };
    let says = "71 °C, resumes below 65 °C";
    closes_and_opens(&Limits::of(Profile::Gentle), &hot(70_001), Some(&hot(65_000)), says, 60);
    let fixed = limits(|limits| limits.ceiling = Ceiling::At(60_000));
    closes_and_opens(&fixed, &hot(60_500), Some(&hot(60_000)), "61 °C, resumes below 55 °C", 60);
    // A trip point that can not be is none: 75 at most then.
    let strange = |millicelsius| {
        let trip_millicelsius = Some(-274_000);
        let temperature = Sensed::Is(Temperature { millicelsius, trip_millicelsius });
        Reading { temperature, ..calm() }
    };
    let says = "76 °C, resumes below 70 °C";
    closes_and_opens(&Limits::of(Profile::Gentle), &strange(75_001), Some(&strange(75_000)), says, 60);
}

#[test]
fn firmware() {
    let flags = |is_under_voltage, is_throttled| {
        let throttle = Sensed::Is(Throttle { is_under_voltage, is_throttled });
        Reading { throttle, ..calm() }
    };
    let gentle = Limits::of(Profile::Gentle);
    let says = "the power supply is too weak, resumes when that has ended";
    closes_and_opens(&gentle, &flags(true, true), None, says, 60);
    let says = "the firmware slows the processor down, resumes when that has ended";
    closes_and_opens(&gentle, &flags(false, true), None, says, 60);
}

#[test]
fn others() {
    let used = |permille| Reading { others_permille: Sensed::Is(permille), ..calm() };
    let gentle = Limits::of(Profile::Gentle);
    let says = "others use 87 % of the CPU, resumes at 20 %";
    closes_and_opens(&gentle, &used(3470), Some(&used(900)), says, 10);
    let says = "others use 26 % of the CPU, resumes at 20 %";
    closes_and_opens(&gentle, &used(1004), Some(&used(1003)), says, 10);
    let mut desk = Desk::new(limits(|limits| limits.others_permille = 1000));
    desk.read(used(u32::MAX));
    assert!(desk.is_open());
    desk.read(Reading { ours_permille: Sensed::Is(4000), ..calm() });
    assert!(desk.is_open(), "our own work is nobody's reason");
}

#[test]
fn supply() {
    let battery =
        |charge_permille| Reading { supply: Sensed::Is(Supply::Battery { charge_permille }), ..calm() };
    let gentle = Limits::of(Profile::Gentle);
    closes_and_opens(&gentle, &battery(Some(1000)), None, "on battery 100 %, resumes on mains", 10);
    let some = limits(|limits| limits.battery_permille = Some(750));
    let says = "on battery 64 %, resumes on mains or at 80 %";
    closes_and_opens(&some, &battery(Some(645)), Some(&battery(Some(799))), says, 10);
    let says = "on battery, its charge unknown, resumes on mains or at 80 %";
    closes_and_opens(&some, &battery(None), None, says, 10);
    let mut desk = Desk::new(limits(|limits| limits.battery_permille = Some(0)));
    desk.read(battery(None));
    assert!(desk.is_open());
    let low = Sensed::Is(Supply::Mains { charge_permille: Some(20) });
    desk.read(Reading { supply: low, ..calm() });
    assert!(desk.is_open(), "on mains a battery is charged");
}

#[test]
fn memory() {
    let left = |available_bytes: u64| {
        let memory = Memory { available_bytes: available_bytes << 20, total_bytes: 1000 << 20 };
        Reading { memory: Sensed::Is(memory), ..calm() }
    };
    let says = "99 MiB of memory available, resumes at 150 MiB";
    closes_and_opens(&Limits::of(Profile::Gentle), &left(99), Some(&left(149)), says, 60);
    let mut desk = Desk::gentle();
    desk.read(left(99));
    assert_eq!(desk.policy.budget().memory_bytes, Some(0));
}

#[test]
fn green_power() {
    let sun = |milli| Reading { green_milli: Sensed::Is(milli), ..calm() };
    let above = limits(|limits| limits.green = Some(Green::Above(500_000)));
    let says = "green power at 499.999, resumes at 525";
    closes_and_opens(&above, &sun(499_999), Some(&sun(524_999)), says, 60);
    let below = limits(|limits| limits.green = Some(Green::Below(700_000)));
    let says = "green power at 700.5, resumes at 665";
    closes_and_opens(&below, &sun(700_500), Some(&sun(700_000)), says, 60);
    let none = Reading { green_milli: Sensed::Absent, ..calm() };
    closes_and_opens(&above, &none, None, "no green-power number, resumes at 525", 60);
    for extreme in [Green::Above(i64::MAX), Green::Below(i64::MIN)] {
        assert!(!Desk::new(limits(|limits| limits.green = Some(extreme))).is_open());
    }
}

/// A reading in which one sensor has a fault.
fn with_fault(sensor: Sensor, fault: Fault) -> Reading {
    let mut reading = calm();
    match sensor {
        Sensor::Quota => reading.quota_permille = Sensed::Broken(fault),
        Sensor::Others => reading.others_permille = Sensed::Broken(fault),
        Sensor::Memory => reading.memory = Sensed::Broken(fault),
        Sensor::Presence => reading.presence = Sensed::Broken(fault),
        Sensor::Supply => reading.supply = Sensed::Broken(fault),
        Sensor::Temperature => reading.temperature = Sensed::Broken(fault),
        Sensor::Throttle => reading.throttle = Sensed::Broken(fault),
        Sensor::Green => reading.green_milli = Sensed::Broken(fault),
        Sensor::Clock => reading.clock = Sensed::Broken(fault),
    }
    reading
}

#[test]
fn a_broken_sensor_closes_what_depends_on_it() {
    // So that everything depends on something.
    let all = limits(|limits| {
        limits.green = Some(Green::Above(1));
        limits.day_energy_mj = Some(1);
        limits.day_network_bytes = Some(1);
        limits.hours = "00:00-23:59".parse::<Hours>().unwrap();
    });
    let none = limits(|limits| {
        limits.used = Some(limits.idle);
        limits.others_permille = 1000;
        limits.memory_permille = 0;
        limits.battery_permille = Some(0);
        limits.ceiling = Ceiling::Off;
    });
    for (sensor, says, dwell_s) in [
        (Sensor::Others, "the CPU meter", 10),
        (Sensor::Memory, "the memory meter", 60),
        (Sensor::Supply, "the power supply's sensor", 10),
        (Sensor::Temperature, "the temperature sensor", 60),
        (Sensor::Green, "the green-power number", 60),
        (Sensor::Clock, "the clock", 10),
        (Sensor::Presence, "the presence sensor", 10),
        (Sensor::Quota, "the cgroup's CPU quota", 10),
        (Sensor::Throttle, "the firmware's throttle flag", 60),
    ] {
        for (fault, how) in [
            (Fault::Nonsense, "says nonsense"),
            (Fault::Vanished, "is gone"),
            (Fault::Unreadable, "can not be read"),
            (Fault::Stale, "is out of date"),
        ] {
            closes_and_opens(&all, &with_fault(sensor, fault), None, &format!("{says} {how}"), dwell_s);
        }
        let mut desk = Desk::new(none.clone());
        desk.read(with_fault(sensor, Fault::Nonsense));
        let always = matches!(sensor, Sensor::Quota | Sensor::Throttle);
        assert_eq!(desk.is_open(), !always, "{says}: no limit depends on it");
    }
}

#[test]
fn numbers_that_can_not_be_are_faults() {
    let battery = |charge| Sensed::Is(Supply::Battery { charge_permille: Some(charge) });
    let memory = Sensed::Is(Memory { available_bytes: 1001, total_bytes: 1000 });
    for (reading, says) in [
        (Reading { temperature: super::heat(-127_000), ..calm() }, "the temperature sensor says nonsense"),
        (Reading { temperature: super::heat(i32::MAX), ..calm() }, "the temperature sensor says nonsense"),
        (Reading { temperature: super::heat(i32::MIN), ..calm() }, "the temperature sensor says nonsense"),
        (Reading { supply: battery(1100), ..calm() }, "the power supply's sensor says nonsense"),
        (Reading { memory, ..calm() }, "the memory meter says nonsense"),
        (Reading { quota_permille: Sensed::Is(0), ..calm() }, "the cgroup's CPU quota says nonsense"),
    ] {
        let mut desk = Desk::gentle();
        desk.read(reading);
        assert_eq!((desk.is_open(), desk.said()), (false, vec![says.to_owned()]));
    }
    let mut desk = Desk::gentle();
    desk.read(Reading { cores: 0, ..calm() });
    assert_eq!((desk.is_open(), desk.share()), (true, (1, 1000)), "it runs on some core");
}

#[test]
fn a_sensor_that_was_there_and_is_not_has_vanished() {
    let mut desk = Desk::gentle();
    desk.read(Reading { temperature: Sensed::Absent, ..calm() });
    assert_eq!(desk.said(), ["the temperature sensor is gone"]);
    desk.run(61, &calm());
    desk.read(Reading { presence: Sensed::Absent, ..calm() });
    assert_eq!(desk.said(), ["the presence sensor is gone"]);
    desk.run(400, &calm());
    desk.read(Reading { quota_permille: Sensed::Absent, green_milli: Sensed::Absent, ..calm() });
    assert!(desk.is_open(), "a quota can be lifted");
}

#[test]
fn silence_closes_while_work_runs() {
    let mut desk = Desk::gentle();
    desk.wait(80);
    assert!(desk.is_open(), "at rest the sensors may rest too");
    desk.handle(Event::Works(true));
    desk.wait(4);
    assert!(desk.is_open(), "the first reading is on its way");
    desk.wait(1);
    assert_eq!(desk.said(), ["no reading for 85 s"]);
    desk.run(2, &calm());
    assert_eq!(desk.said(), ["no reading for 86 s a moment ago, resumes in 10 s"]);
    desk.run(10, &calm());
    assert!(desk.is_open());
    desk.wait(5);
    assert_eq!(desk.said(), ["no reading for 5 s"]);
    desk.run(12, &calm());
    desk.handle(Event::Works(false));
    desk.wait(90);
    assert_eq!(desk.said(), ["no reading for 90 s"], "but not for ever");
}

#[test]
fn a_suspended_machine_does_not_wake_up_working() {
    let mut desk = Desk::gentle();
    desk.handle(Event::Works(true));
    desk.read(Reading { temperature: super::heat(90_000), ..calm() });
    desk.run(55, &calm());
    desk.ms += 8 * 3_600_000;
    desk.read(calm());
    assert_eq!(desk.codes(), ["no_reading", "hot"]);
    assert!(
        desk.said()[1].ends_with("resumes below 65 °C"),
        "what settled before it slept is no sign of now"
    );
    desk.run(12, &calm());
    assert_eq!(desk.codes(), ["hot"], "which has to cool for a minute that somebody saw");
    desk.run(50, &calm());
    assert!(desk.is_open());
}
