//! Laptops, desktops, boards with a UPS, and batteries that lie.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::proto::budget::Fault;

type Entry<'a> = (&'a str, &'a [(&'a str, &'a str)]);

fn tree(entries: &[Entry<'_>]) -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    fs::create_dir_all(root.at(DIR)).unwrap();
    for (name, files) in entries {
        let at = root.at(DIR).join(name);
        fs::create_dir_all(&at).unwrap();
        for (file, text) in *files {
            fs::write(at.join(file), format!("{text}\n")).unwrap();
        }
    }
    (dir, root)
}

fn found(entries: &[Entry<'_>]) -> Found<Supply> {
    let (_dir, root) = tree(entries);
    read(&root)
}

fn mains(charge_permille: impl Into<Option<u16>>) -> Found<Supply> {
    Ok(Supply::Mains { charge_permille: charge_permille.into() })
}

fn battery(charge_permille: impl Into<Option<u16>>) -> Found<Supply> {
    Ok(Supply::Battery { charge_permille: charge_permille.into() })
}

const AC_ON: Entry<'_> = ("AC", &[("type", "Mains"), ("online", "1")]);
const AC_OFF: Entry<'_> = ("AC", &[("type", "Mains"), ("online", "0")]);
const USB_ON: Entry<'_> = ("ucsi-source-psy-USBC000:001", &[("type", "USB"), ("online", "1")]);
const USB_OFF: Entry<'_> = ("ucsi-source-psy-USBC000:002", &[("type", "USB"), ("online", "0")]);
const MOUSE: Entry<'_> = (
    "hidpp_battery_0",
    &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging"), ("capacity", "5")],
);

fn cell<'a>(status: &'a str, capacity: &'a str) -> [(&'a str, &'a str); 4] {
    [("type", "Battery"), ("present", "1"), ("status", status), ("capacity", capacity)]
}

#[test]
fn a_desktop_or_a_pi_without_supplies_has_none() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read(&Root::new(dir.path())), Err(Lack::Missing));
    assert_eq!(found(&[]), Err(Lack::Missing));
    assert_eq!(found(&[MOUSE]), Err(Lack::Missing), "a mouse's battery is not the machine's");
    assert_eq!(found(&[MOUSE, USB_OFF]), mains(None), "a desktop with USB-C ports");
}

#[test]
fn laptops() {
    assert_eq!(found(&[AC_ON, ("BAT0", &cell("Charging", "42"))]), mains(420));
    assert_eq!(found(&[AC_OFF, ("BAT0", &cell("Discharging", "42")), MOUSE]), battery(420));
    assert_eq!(found(&[AC_OFF, ("BAT0", &cell("Full", "100"))]), battery(1000), "just unplugged");
    assert_eq!(found(&[AC_ON, ("BAT0", &cell("Discharging", "99"))]), mains(990), "a recalibration");
    assert_eq!(
        found(&[AC_ON, ("BAT0", &[("type", "Battery"), ("present", "0")])]),
        mains(None),
        "an empty bay"
    );
}

#[test]
fn laptops_on_usb_c() {
    assert_eq!(found(&[USB_OFF, USB_ON, ("BAT0", &cell("Charging", "42"))]), mains(420));
    assert_eq!(found(&[USB_OFF, USB_ON, ("BAT0", &cell("Not charging", "80"))]), mains(800), "held at 80 %");
    assert_eq!(found(&[USB_OFF, ("BAT0", &cell("Discharging", "42"))]), battery(420));
    assert_eq!(
        found(&[USB_ON, ("BAT0", &cell("Discharging", "42"))]),
        battery(420),
        "it charges a telephone"
    );
    assert_eq!(found(&[AC_OFF, USB_OFF, ("BAT0", &cell("Charging", "42"))]), mains(420));
    assert_eq!(found(&[USB_OFF, ("BAT0", &cell("Unknown", "42"))]), battery(420));
}

#[test]
fn macs_and_chromebooks() {
    let mac: &[Entry<'_>] =
        &[("macsmc-ac", &[("type", "Mains"), ("online", "1")]), ("macsmc-battery", &cell("Full", "100"))];
    assert_eq!(found(mac), mains(1000));
    let chromebook: &[Entry<'_>] = &[
        ("CROS_USBPD_CHARGER0", &[("type", "USB"), ("online", "2")]),
        ("CROS_USBPD_CHARGER1", &[("type", "USB"), ("online", "0")]),
        ("sbs-20-000b", &cell("Charging", "7")),
    ];
    assert_eq!(found(chromebook), mains(70));
}

#[test]
fn a_pi_with_a_ups_hat_shows_a_battery_alone() {
    assert_eq!(found(&[("battery", &cell("Discharging", "42"))]), battery(420));
    assert_eq!(found(&[("battery", &cell("Charging", "42"))]), mains(420));
    assert_eq!(found(&[("battery", &cell("Full", "100"))]), mains(1000));
    assert_eq!(
        found(&[("battery", &cell("Unknown", "42"))]),
        Err(NONSENSE),
        "it does not say, and we do not guess"
    );
}

#[test]
fn a_ups_is_no_battery_of_ours() {
    let ups = |status| [("type", "UPS"), ("status", status), ("capacity", "90")];
    assert_eq!(found(&[("ups", &ups("Charging"))]), mains(None));
    assert_eq!(found(&[("ups", &ups("Full"))]), mains(None));
    assert_eq!(found(&[("ups", &ups("Discharging"))]), battery(900), "its mains are out");
    let laptop = cell("Full", "100");
    assert_eq!(found(&[AC_ON, ("BAT0", &laptop), ("ups", &ups("Discharging"))]), battery(900));
}

#[test]
fn several_batteries_are_one_by_energy() {
    let energy = |now, full| {
        [
            ("type", "Battery"),
            ("status", "Discharging"),
            ("energy_now", now),
            ("energy_full", full),
            ("capacity", "1"),
        ]
    };
    assert_eq!(
        found(&[("BAT0", &energy("20000000", "20000000")), ("BAT1", &energy("0", "60000000"))]),
        battery(250)
    );
    assert_eq!(
        found(&[("BAT0", &energy("20000000", "20000000")), ("BAT1", &cell("Full", "50"))]),
        battery(750)
    );
    let charge = [("type", "Battery"), ("status", "Discharging"), ("charge_now", "1"), ("charge_full", "4")];
    assert_eq!(found(&[("BAT0", &charge)]), battery(250));
    assert_eq!(found(&[("BAT0", &[("type", "Battery"), ("status", "Discharging")])]), battery(None));
}

#[test]
fn what_cannot_be_is_nonsense() {
    assert_eq!(found(&[AC_ON, ("BAT0", &cell("Charging", "110"))]), Err(NONSENSE));
    assert_eq!(found(&[AC_ON, ("BAT0", &cell("Charging", "103"))]), mains(1000), "worn, not broken");
    assert_eq!(found(&[AC_ON, ("BAT0", &cell("Charging", "-5"))]), Err(NONSENSE));
    assert_eq!(found(&[AC_ON, ("BAT0", &cell("Quantum", "50"))]), Err(NONSENSE));
    assert_eq!(found(&[("AC", &[("type", "Mains"), ("online", "7")])]), Err(NONSENSE));
    assert_eq!(found(&[("AC", &[("type", "Mains"), ("online", "yes")])]), Err(NONSENSE));
    let zero = [("type", "Battery"), ("status", "Discharging"), ("energy_now", "5"), ("energy_full", "0")];
    assert_eq!(found(&[("BAT0", &zero)]), battery(None));
    let more = [("type", "Battery"), ("status", "Discharging"), ("energy_now", "9"), ("energy_full", "5")];
    assert_eq!(found(&[("BAT0", &more)]), Err(NONSENSE));
    let (_dir, root) = tree(&[AC_ON]);
    fs::create_dir(root.at(DIR).join("AC/scope")).unwrap();
    assert_eq!(read(&root), Err(Lack::Broken(Fault::Unreadable)));
}

proptest! {
    #[test]
    fn any_files_are_read_without_a_panic(
        kind in "(Battery|UPS|USB|Mains|\\PC{0,9})",
        status in "(Unknown|Full|Discharging|\\PC{0,9})",
        numbers in prop::collection::vec("(-?[0-9]{0,21}|\\PC{0,5})", 6),
    ) {
        let names = ["online", "capacity", "energy_now", "energy_full", "charge_now", "charge_full"];
        let mut files = vec![("type", kind.as_str()), ("status", status.as_str())];
        files.extend(names.into_iter().zip(numbers.iter().map(String::as_str)));
        let (_dir, root) = tree(&[("x", &files), ("y", &files)]);
        if let Ok(Supply::Battery { charge_permille: Some(n) } | Supply::Mains { charge_permille: Some(n) }) = read(&root) {
            prop_assert!(n <= 1000);
        }
        let _ = describe(&root);
    }
}
