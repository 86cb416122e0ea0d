//! The machine in a few lines of 80 columns: who uses its CPU, memory, heat, power, and what today took.

use std::time::Duration;

use super::human;
use crate::api::view::{BudgetView, SensorsView, Status, TodayView};

/// Cells of a bar.
const BAR: usize = 20;

/// `[####::::................]`: parts of a whole, each with its own sign.
pub(super) fn bar(parts: &[(f64, char)]) -> String {
    let mut cells = String::with_capacity(BAR + 2);
    let mut sum = 0.0;
    for (part, sign) in parts {
        sum += part.max(0.0);
        let upto = ((sum * BAR as f64).round() as usize).min(BAR);
        while cells.chars().count() < upto {
            cells.push(*sign);
        }
    }
    format!("[{cells:.<BAR$}]")
}

/// Names and texts, a line each.
pub(super) fn lines(status: &Status) -> Vec<(&'static str, String)> {
    let mut lines = vec![("lends", lends(&status.budget))];
    let Some(sensors) = &status.sensors else { return lines };
    lines.extend(cpu(sensors).map(|text| ("cpu", text)));
    lines.extend(memory(sensors, status.load.memory_bytes).map(|text| ("memory", text)));
    lines.push(("device", device(sensors)));
    lines.push(("today", today(&status.today)));
    lines.extend(energy(&status.today).map(|text| ("energy", text)));
    lines
}

fn lends(budget: &BudgetView) -> String {
    let speed = match budget.tokens_per_s {
        0 => String::new(),
        speed => format!(", {} tokens/s", human::number(u64::from(speed))),
    };
    let duty = match budget.duty_permille {
        1000 => String::new(),
        duty => format!(" at {} %", duty / 10),
    };
    match budget.threads {
        0 => "nothing now".to_owned(),
        threads => format!("{}{duty}{speed}", human::count(threads as u64, "thread")),
    }
}

fn cpu(sensors: &SensorsView) -> Option<String> {
    let all = f64::from(sensors.cores.max(1)) * 1000.0;
    let share = |permille: Option<u32>| permille.map(|permille| f64::from(permille) / all);
    let (others, ours) = (share(sensors.others_permille)?, share(sensors.ours_permille).unwrap_or(0.0));
    let clock = sensors.frequency_mhz.map(|mhz| format!(" x {:.1} GHz", f64::from(mhz) / 1000.0));
    let bar = bar(&[(others, '#'), (ours, ':')]);
    let (others, ours) = (others * 100.0, ours * 100.0);
    let cores = match clock {
        Some(clock) => format!("{}{clock}", sensors.cores),
        None => human::count(u64::from(sensors.cores), "core"),
    };
    Some(format!("{bar} # others {others:.0} %, : edge {ours:.0} %, {cores}"))
}

fn memory(sensors: &SensorsView, edge: u64) -> Option<String> {
    let (total, free) = (sensors.memory_total_bytes?, sensors.memory_available_bytes?);
    let used = 1.0 - free as f64 / total.max(1) as f64;
    let (free, total, edge) = (human::bytes(free), human::bytes(total), human::bytes(edge));
    Some(format!("{} {free} of {total} free, edge {edge}", bar(&[(used, '#')])))
}

fn device(sensors: &SensorsView) -> String {
    let mut parts = Vec::new();
    let charge = sensors.charge_permille.map(|charge| format!("battery {} %", charge / 10));
    match (sensors.power.as_deref(), charge) {
        (Some("battery"), Some(charge)) => parts.push(charge),
        (Some(power), Some(charge)) => parts.push(format!("{power}, {charge}")),
        (Some(power), None) => parts.push(power.to_owned()),
        (None, _) => {}
    }
    let degrees = |milli: i32| format!("{:.0} °C", f64::from(milli) / 1000.0);
    if let Some(now) = sensors.millicelsius {
        let trip = sensors.trip_millicelsius.map(|trip| format!(" (slows at {})", trip / 1000));
        parts.push(format!("{}{}", degrees(now), trip.unwrap_or_default()));
    }
    match sensors.idle_s {
        Some(0) => parts.push("in use".to_owned()),
        Some(idle) => {
            parts.push(format!("nobody there for {}", human::duration(Duration::from_secs(idle))));
        }
        None => {}
    }
    if sensors.is_under_voltage == Some(true) {
        parts.push("under-voltage".to_owned());
    }
    if sensors.is_throttled == Some(true) {
        parts.push("throttled".to_owned());
    }
    if !sensors.broken.is_empty() {
        parts.push(format!("broken: {} (`edge doctor`)", sensors.broken.join(", ")));
    }
    if parts.is_empty() { "says nothing of heat, power or presence".to_owned() } else { parts.join("; ") }
}

fn today(today: &TodayView) -> String {
    let of = |limit: Option<String>| limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
    let limit = today.limit_mj.map(|mj| format!("{:.1}", wh(mj)));
    let source = if today.energy_source == "counter" { "" } else { " est." };
    let energy = format!("{:.2}{} Wh{source}", wh(today.energy_mj), of(limit));
    let cpu = human::duration(Duration::from_millis(today.cpu_ms));
    let network = match today.limit_bytes {
        Some(limit) => format!(", {} of {}", human::bytes(today.network_bytes), human::bytes(limit)),
        None => String::new(),
    };
    let (jobs, chunks) = (human::count(today.jobs, "job"), human::count(today.chunks, "chunk"));
    format!("{jobs}, {chunks}, {cpu} CPU, {energy}{network}")
}

/// What the work takes, apart from what the machine takes in any case.
fn energy(today: &TodayView) -> Option<String> {
    let (thousand, job) = (today.mj_per_1000_chunks?, today.mj_per_job?);
    let joules = |mj: u64| human::number(mj.div_ceil(1000));
    let source = match today.energy_source.as_str() {
        "counter" => "counted".to_owned(),
        _ => format!("est. at {:.1} W a core", today.milliwatts_per_core as f64 / 1000.0),
    };
    Some(format!("{} J per 1,000 chunks, {} J a job, {source}", joules(thousand), joules(job)))
}

fn wh(mj: u64) -> f64 {
    mj as f64 / 3_600_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_whatever_it_shows() {
        let bars = [
            bar(&[(0.5, '#'), (0.25, ':')]),
            bar(&[(1.5, '#'), (0.9, ':')]),
            bar(&[(f64::NAN, '#'), (-1.0, ':')]),
        ];
        assert_eq!(bars[0], "[##########:::::.....]");
        assert_eq!(bars[1], format!("[{}]", "#".repeat(BAR)));
        assert_eq!(bars[2], format!("[{}]", ".".repeat(BAR)));
    }

    #[test]
    fn all_of_it_fits_80_columns() {
        let sensors = SensorsView {
            cores: 128,
            others_permille: Some(128_000),
            ours_permille: Some(128_000),
            frequency_mhz: Some(4800),
            memory_available_bytes: Some(1000 << 30),
            memory_total_bytes: Some(1023 << 30),
            idle_s: Some(86_399),
            power: Some("battery".into()),
            charge_permille: Some(1000),
            millicelsius: Some(101_000),
            trip_millicelsius: Some(105_000),
            ..SensorsView::default()
        };
        let today = TodayView {
            jobs: 123_456,
            chunks: 12_345_678,
            cpu_ms: 86_340_000,
            energy_mj: 4_000_000_000,
            mj_per_1000_chunks: Some(123_456_000),
            mj_per_job: Some(123_456_000),
            milliwatts_per_core: 99_900,
            ..TodayView::default()
        };
        let status = Status { sensors: Some(sensors), today, ..Status::default() };
        for (name, text) in lines(&status) {
            assert!(12 + text.chars().count() <= 80, "{name}: {text}");
        }
        assert_eq!(lines(&Status::default()), [("lends", "nothing now".to_owned())]);
    }
}
