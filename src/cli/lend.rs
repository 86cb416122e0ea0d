//! `edge pause`, `edge resume`, `edge finish`: what the owner orders about lending, kept over a restart.

use std::io::{Write, stdout};

use super::{
    context::{Context, stop_on_signals},
    exit::Exit,
    node::{Alone, Seat, lending},
    status::state,
    talk,
};
use crate::{
    api::view::{LendOrder, Status},
    node::wall_clock_ms,
    proto::{
        Timestamp,
        budget::{Event, Policy, Standing},
    },
};

/// The longest pause that has an end: a month.
const PAUSE_S_MAX: u64 = 31 * 86_400;

/// `90`, `45s`, `30m`, `2h`, `1d`, in seconds; a number alone is minutes.
pub(super) fn lasting(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "" | "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("takes a time such as 45s, 30m, 2h or 1d".to_owned()),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    let seconds = seconds.filter(|s| (1..=PAUSE_S_MAX).contains(s));
    seconds.ok_or_else(|| "takes a time such as 45s, 30m, 2h or 1d, up to 31d".to_owned())
}

/// Carries an order out: by the node where one runs, else in the store, for the next one.
pub(super) fn run(order: &LendOrder, context: &Context) -> anyhow::Result<Exit> {
    let stop = stop_on_signals()?;
    match Seat::take(context, "pause", &stop)? {
        Seat::Running(mut client) => {
            let status: Status = client.post("/v1/lend", order)?;
            if context.json {
                writeln!(stdout(), "{}", serde_json::to_string(&status)?)?;
                return Ok(Exit::Done);
            }
            talk::say(&state(&status, status.paused_because.as_deref()));
        }
        Seat::Alone(Alone { mut store, .. }) => {
            let event = match *order {
                LendOrder::Pause { seconds } => {
                    let lasting = seconds.map(std::time::Duration::from_secs);
                    Event::Pause { lasting, wall_ms: wall_clock_ms() }
                }
                LendOrder::Resume => Event::Resume,
                LendOrder::Finish => Event::Finish,
            };
            let mut policy =
                Policy::new(Timestamp::default(), lending(context)?.limits, Standing::default(), None);
            policy.handle(Timestamp::default(), event);
            store.put_standing(policy.standing())?;
            talk::say("no node runs here; the next one keeps to it");
        }
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        let of = |text| lasting(text).ok();
        assert_eq!(
            ["30m", "45s", "2h", "1d", "5", "31d"].map(of),
            [Some(1800), Some(45), Some(7200), Some(86_400), Some(300), Some(2_678_400)]
        );
        for wrong in ["", "m", "0m", "-5m", "1.5h", "5y", "32d", "99999999999999999999d", "５m"] {
            assert!(lasting(wrong).unwrap_err().contains("30m"), "{wrong}");
        }
    }
}
