//! Where the power comes from: mains, the machine's own batteries, a UPS.
//!
//! Every supply is asked each time: a USB-C charger comes and goes with its plug. `scope` `Device` is the battery of a
//! mouse or a headset and does not count. What is told apart, in this order:
//! - A UPS that discharges: its mains are out, and so are ours.
//! - No battery of our own: whatever we run on is none. With a charger, a UPS on mains or not a word, that is mains.
//! - A supply of type `Mains` that is online.
//! - A battery that discharges: we run on it. Even where a USB port says `online`: a port that feeds a telephone says so
//!   too on older kernels, and a charger that is too weak does not keep the battery from emptying.
//! - A USB or wireless charger that is online, or a battery that charges.
//! - Chargers of which none is online: battery.
//! - No charger known, as with a UPS HAT: a battery that is full or holds its charge is on mains. `Unknown` says nothing,
//!   and that is no answer to guess from.
//!
//! Source: `Documentation/ABI/testing/sysfs-class-power`.

use super::root::{Found, Lack, NONSENSE, Root, optional};
use crate::proto::budget::Supply;

pub(super) const DIR: &str = "/sys/class/power_supply";
/// Supplies that are asked. A laptop with four ports and two batteries has seven.
const SUPPLIES_MAX: usize = 32;
/// A worn battery may claim a little more than it holds; beyond this it makes things up.
const PERMILLE_MAX: u64 = 1050;

/// One supply that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Mains { online: bool },
    Charger { online: bool },
    Battery(Battery),
    Ups(Battery),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Battery {
    status: Status,
    charge: Option<Charge>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Charging,
    Discharging,
    Holding,
    Unknown,
}

/// How full, and how much that is where it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Charge {
    permille: u64,
    full_uwh: Option<u64>,
}

/// # Errors
/// [`Lack`]; missing where the kernel knows of no supply that counts.
pub(super) fn read(root: &Root) -> Found<Supply> {
    let mut sources = Vec::new();
    for name in root.names(DIR)?.iter().take(SUPPLIES_MAX) {
        // What was pulled out while we looked is not there.
        sources.extend(optional(source(root, &format!("{DIR}/{name}")))?.flatten());
    }
    if sources.is_empty() { Err(Lack::Missing) } else { judge(&sources) }
}

/// One line for every supply: its name, type and state.
pub(super) fn describe(root: &Root) -> String {
    let names = root.names(DIR).unwrap_or_default();
    let words = names.iter().take(SUPPLIES_MAX).map(|name| {
        let word = |file: &str| root.word(format!("{DIR}/{name}/{file}")).ok();
        let parts = ["type", "scope", "online", "status", "capacity"].into_iter().filter_map(|file| {
            let said = super::described::shown(&word(file)?);
            Some(if file == "type" { said } else { format!("{file} {said}") })
        });
        format!("{} ({})", super::described::shown(name), parts.collect::<Vec<_>>().join(", "))
    });
    words.collect::<Vec<_>>().join("; ")
}

fn source(root: &Root, dir: &str) -> Found<Option<Source>> {
    let word = |file: &str| root.word(format!("{dir}/{file}"));
    let kind = word("type")?;
    if optional(word("scope"))?.as_deref() == Some("Device") {
        return Ok(None);
    }
    let online = || -> Found<bool> {
        // 1 is a fixed voltage, 2 a programmable one.
        match optional(root.number::<u8>(format!("{dir}/online")))? {
            None | Some(0) => Ok(false),
            Some(1 | 2) => Ok(true),
            Some(_) => Err(NONSENSE),
        }
    };
    Ok(match kind.as_str() {
        "Mains" => Some(Source::Mains { online: online()? }),
        "Wireless" => Some(Source::Charger { online: online()? }),
        kind if kind.starts_with("USB") => Some(Source::Charger { online: online()? }),
        "UPS" => Some(Source::Ups(battery(root, dir)?)),
        // An empty bay is no battery.
        "Battery" if optional(word("present"))?.as_deref() == Some("0") => None,
        "Battery" => Some(Source::Battery(battery(root, dir)?)),
        _ => None,
    })
}

fn battery(root: &Root, dir: &str) -> Found<Battery> {
    let status = match optional(root.word(format!("{dir}/status")))?.as_deref() {
        Some("Charging") => Status::Charging,
        Some("Discharging") => Status::Discharging,
        Some("Full" | "Not charging") => Status::Holding,
        None | Some("Unknown") => Status::Unknown,
        Some(_) => return Err(NONSENSE),
    };
    Ok(Battery { status, charge: charge(root, dir)? })
}

/// By energy, else by electric charge, else by the percentage that the battery itself gives; each that is there must
/// make sense.
fn charge(root: &Root, dir: &str) -> Found<Option<Charge>> {
    let number = |file: &str| optional(root.number::<u64>(format!("{dir}/{file}")));
    let capacity = number("capacity")?.map(|percent| permille(percent, 100)).transpose()?;
    for kind in ["energy", "charge"] {
        let Some((now, full)) = number(&format!("{kind}_now"))?.zip(number(&format!("{kind}_full"))?) else {
            continue;
        };
        // An ACPI battery that was never full does not know how much that is.
        if full == 0 {
            continue;
        }
        let full_uwh = if kind == "energy" { Some(full) } else { None };
        return Ok(Some(Charge { permille: permille(now, full)?, full_uwh }));
    }
    Ok(capacity.map(|permille| Charge { permille, full_uwh: None }))
}

fn permille(now: u64, full: u64) -> Found<u64> {
    let share = now.checked_mul(1000).ok_or(NONSENSE)? / full;
    if share > PERMILLE_MAX { Err(NONSENSE) } else { Ok(share.min(1000)) }
}

/// By the rules at the head of this file.
fn judge(sources: &[Source]) -> Found<Supply> {
    let any = |wanted: &dyn Fn(&Source) -> bool| sources.iter().any(wanted);
    let batteries: Vec<Battery> = sources
        .iter()
        .filter_map(|s| if let Source::Battery(battery) = s { Some(*battery) } else { None })
        .collect();
    let dark = sources.iter().find_map(|source| match source {
        Source::Ups(ups) if ups.status == Status::Discharging => Some(*ups),
        _ => None,
    });
    if let Some(ups) = dark {
        return Ok(Supply::Battery { charge_permille: together(&[ups]) });
    }
    let charge_permille = together(&batteries);
    let mains = Ok(Supply::Mains { charge_permille });
    let battery = Ok(Supply::Battery { charge_permille });
    let has = |status: Status| batteries.iter().any(|battery| battery.status == status);
    if batteries.is_empty() || any(&|s| matches!(s, Source::Mains { online: true })) {
        mains
    } else if has(Status::Discharging) {
        battery
    } else if any(&|s| matches!(s, Source::Charger { online: true })) || has(Status::Charging) {
        mains
    } else if any(&|s| matches!(s, Source::Mains { .. } | Source::Charger { .. })) {
        battery
    } else if has(Status::Holding) {
        mains
    } else {
        Err(NONSENSE)
    }
}

/// Several batteries are one, each by how much it holds; where one does not say, each counts the same.
fn together(batteries: &[Battery]) -> Option<u16> {
    let charges: Vec<Charge> = batteries.iter().filter_map(|battery| battery.charge).collect();
    let all_say = charges.iter().all(|charge| charge.full_uwh.is_some());
    let weight = |charge: &Charge| if all_say { charge.full_uwh.unwrap_or(1) } else { 1 };
    let full: u128 = charges.iter().map(|charge| u128::from(weight(charge))).sum();
    let now: u128 =
        charges.iter().map(|charge| u128::from(weight(charge)) * u128::from(charge.permille)).sum();
    u16::try_from(now.checked_div(full)?).ok()
}

#[cfg(test)]
mod tests;
