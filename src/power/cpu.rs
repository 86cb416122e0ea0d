//! How much of the CPU others use and how much we do, from the kernel's counters.
//!
//! Others = user, system, interrupt and softirq time of the CPUs that we may run on, less what threads of ours had of
//! it: where a container is given some CPUs of a machine, what runs on the rest is nothing to us. Time of
//! niced threads is in a column of its own, and so our compute is not counted; but only its user time: the kernel
//! books system time without asking how nice a thread is, so all system time of ours is taken off, and the user time
//! of those of our threads that are not nice. Stolen time is nobody's here: a neighbour on the same host took it, or a
//! limit on the virtual machine that our own work has hit, and to yield to that would swing.
//! Sources: `Documentation/filesystems/proc.rst` §1.8 (`/proc/stat`), tables 1-2 (`/proc/PID/status`) and 1-4
//! (`/proc/PID/stat`).

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use super::{
    described::Described,
    moment::Moment,
    root::{Found, Lack, NONSENSE, Root, sensed},
    vanish::Seen,
};
use crate::proto::budget::{Fault, Sensed};

/// Milliseconds of one tick: `USER_HZ` is 100 wherever edge runs (uapi `asm-generic/param.h`).
const TICK_MS: u64 = 10;
/// A shorter difference says more of the ticks than of the load: what was found last is said again.
const INTERVAL_MIN: Duration = Duration::from_millis(200);
/// The lines of 256 CPUs; what follows them (`intr` is as long as a page on a PC) is not looked at.
const STAT_BYTES_MAX: usize = 24 * 1024;
/// The status of a process, which ends with its lists of groups, CPUs and memory nodes.
const STATUS_BYTES_MAX: usize = 16 * 1024;
/// One line of 52 fields.
const TASK_BYTES_MAX: usize = 1024;
/// Threads of ours that are looked at; there are some ten.
const THREADS_MAX: usize = 256;
/// What tick counters may show above the cores that there are: they are sampled, and two files are not read at once.
const SLACK_TICKS: u64 = 20;

/// What both counters say together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counters {
    at: Duration,
    machine: Machine,
    user: u64,
    system: u64,
}

/// `/proc/stat`, in ticks, of the CPUs that we may run on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Machine {
    busy: u64,
    cpus: u64,
    /// Only these; none where they are all.
    only: Option<Allowed>,
}

/// CPUs by their numbers.
type Allowed = Vec<RangeInclusive<u32>>;

/// A thread or process, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Task {
    user: u64,
    system: u64,
    nice: i64,
}

/// CPU shares in thousandths of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) others: Sensed<u32>,
    pub(super) ours: Sensed<u32>,
}

/// Keeps the counters of the reading before.
#[derive(Debug)]
pub(super) struct Cpu {
    before: Option<Counters>,
    threads: BTreeMap<u32, u64>,
    last: Shares,
    seen: Seen,
}

impl Cpu {
    /// Takes the counters from which the first reading will differ.
    pub(super) fn new(root: &Root, now: &Moment) -> Self {
        let mut threads = BTreeMap::new();
        nice_user(root, &mut threads);
        let before = counters(root, now.monotonic).ok();
        // A share needs two looks: until the second one there is a sensor and no answer.
        let none = if before.is_some() { Sensed::Broken(Fault::Stale) } else { Sensed::Absent };
        Self { before, threads, last: Shares { others: none, ours: none }, seen: Seen::default() }
    }

    /// Shares since the reading before; the last ones again where that was just now.
    pub(super) fn read(&mut self, root: &Root, now: &Moment) -> Shares {
        if self.before.as_ref().is_some_and(|b| now.monotonic.saturating_sub(b.at) < INTERVAL_MIN) {
            return self.last;
        }
        let after = counters(root, now.monotonic);
        let both = match (&self.before, &after) {
            (_, Err(lack)) => Err(*lack),
            // There is nothing yet to differ from: the sensor is new, and the next reading knows.
            (None, Ok(_)) => Err(Lack::Broken(Fault::Stale)),
            (Some(before), Ok(after)) => self.between(root, before.clone(), after),
        };
        self.before = after.ok();
        let others = self.seen.judge(sensed(both.map(|(others, _)| others)));
        let ours = match (others, both) {
            (Sensed::Broken(fault), _) => Sensed::Broken(fault),
            (_, both) => sensed(both.map(|(_, ours)| ours)),
        };
        self.last = Shares { others, ours };
        self.last
    }

    fn between(&mut self, root: &Root, before: Counters, after: &Counters) -> Found<(u32, u32)> {
        let forward = |from: u64, to: u64| to.checked_sub(from).ok_or(NONSENSE);
        let elapsed_ms = u64::try_from(after.at.saturating_sub(before.at).as_millis()).unwrap_or(u64::MAX);
        if before.machine.only != after.machine.only {
            // Counters of other CPUs: there is nothing yet to differ from.
            return Err(Lack::Broken(Fault::Stale));
        }
        let machine = forward(before.machine.busy, after.machine.busy)?;
        let user = forward(before.user, after.user)?;
        let system = forward(before.system, after.system)?;
        let cpus = before.machine.cpus.max(after.machine.cpus).max(1);
        let possible = elapsed_ms.saturating_mul(cpus) / TICK_MS;
        let most = possible.saturating_add(possible / 8).saturating_add(SLACK_TICKS);
        if machine > most || user.saturating_add(system) > most {
            return Err(NONSENSE);
        }
        // Which thread it was is asked only where there is something to ask for: an idle node opens no file a thread.
        let own_user = if user == 0 { 0 } else { user.saturating_sub(nice_user(root, &mut self.threads)) };
        let others = machine.saturating_sub(system).saturating_sub(own_user);
        let permille = |ticks: u64| {
            let share = ticks.saturating_mul(TICK_MS * 1000) / elapsed_ms.max(1);
            u32::try_from(share.min(cpus * 1000)).unwrap_or(u32::MAX)
        };
        Ok((permille(others), permille(user + system)))
    }

    pub(super) fn describe(&self) -> Described {
        let worded =
            |others: &u32| format!("/proc/stat: others {:.1} % of one core", f64::from(*others) / 10.0);
        Described::new("cpu", &self.last.others, worded, "/proc/stat and /proc/self/stat")
    }
}

fn counters(root: &Root, at: Duration) -> Found<Counters> {
    let allowed = root.text("/proc/self/status", STATUS_BYTES_MAX).ok().as_deref().and_then(parse_allowed);
    let machine = parse_machine(&root.beginning("/proc/stat", STAT_BYTES_MAX)?, allowed)?;
    let own = parse_task(&root.beginning("/proc/self/stat", TASK_BYTES_MAX)?)?;
    Ok(Counters { at, machine, user: own.user, system: own.system })
}

/// User ticks since the last call of those of our threads that are nice. A thread that has ended, and was nice, is not
/// seen any more: what it did since counts as if it had not been, and others seem to have had less. A thread that loads
/// a model and ends must not be taken for somebody else.
fn nice_user(root: &Root, threads: &mut BTreeMap<u32, u64>) -> u64 {
    let names = root.names("/proc/self/task").unwrap_or_default();
    let mut now = BTreeMap::new();
    let mut ticks: u64 = 0;
    for (id, name) in names.iter().filter_map(|name| Some((name.parse().ok()?, name))).take(THREADS_MAX) {
        let path = format!("/proc/self/task/{name}/stat");
        // A thread may end between the two.
        let Ok(task) = root.beginning(path, TASK_BYTES_MAX).and_then(|text| parse_task(&text)) else {
            continue;
        };
        if task.nice > 0 {
            ticks = ticks.saturating_add(task.user.saturating_sub(threads.get(&id).copied().unwrap_or(0)));
            now.insert(id, task.user);
        }
    }
    *threads = now;
    ticks
}

/// `cpu  user nice system idle iowait irq softirq steal guest guest_nice`, then the same for every CPU that is online.
/// Guests are within user and nice.
fn parse_machine(text: &str, allowed: Option<Allowed>) -> Found<Machine> {
    let mut lines = text.lines();
    let all = lines.next().and_then(|line| line.strip_prefix("cpu ")).ok_or(NONSENSE)?;
    let cpus: Vec<(u32, &str)> = lines
        .map_while(|line| line.strip_prefix("cpu")?.split_once(' '))
        .map_while(|(number, columns)| Some((number.parse().ok()?, columns)))
        .collect();
    let allowed = allowed.filter(|allowed| cpus.iter().any(|&(cpu, _)| !has(allowed, cpu)));
    let Some(allowed) = allowed else {
        return Ok(Machine { busy: busy(all)?, cpus: cpus.len() as u64, only: None });
    };
    let mut machine = Machine { busy: 0, cpus: 0, only: None };
    for &(_, columns) in cpus.iter().filter(|&&(cpu, _)| has(&allowed, cpu)) {
        machine.busy = machine.busy.checked_add(busy(columns)?).ok_or(NONSENSE)?;
        machine.cpus += 1;
    }
    Ok(Machine { only: Some(allowed), ..machine })
}

fn busy(columns: &str) -> Found<u64> {
    let columns: Vec<u64> = columns
        .split_ascii_whitespace()
        .take(10)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| NONSENSE)?;
    let &[user, _, system, _, ..] = columns.as_slice() else { return Err(NONSENSE) };
    let interrupts = columns.iter().skip(5).take(2).try_fold(0_u64, |sum, &ticks| sum.checked_add(ticks));
    user.checked_add(system).zip(interrupts).and_then(|(a, b)| a.checked_add(b)).ok_or(NONSENSE)
}

fn has(allowed: &[RangeInclusive<u32>], cpu: u32) -> bool {
    allowed.iter().any(|range| range.contains(&cpu))
}

/// `Cpus_allowed_list:\t0-3,8`.
fn parse_allowed(status: &str) -> Option<Allowed> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').map(range).collect()
}

/// `pid (name) state …`: the name may hold anything, so what counts comes after the last parenthesis.
fn parse_task(text: &str) -> Found<Task> {
    let (_, rest) = text.rsplit_once(')').ok_or(NONSENSE)?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().take(17).collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse().ok()).ok_or(NONSENSE);
    let nice = fields.get(16).and_then(|field| field.parse().ok()).ok_or(NONSENSE)?;
    Ok(Task { user: number(11)?, system: number(12)?, nice })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("proc/self/task/7")).unwrap();
            fs::create_dir_all(dir.path().join("proc/self/task/8")).unwrap();
            Self(dir)
        }

        fn machine(&self, user: u64, nice: u64, system: u64, irq: u64) -> &Self {
            let text =
                format!("cpu  {user} {nice} {system} 900 9 {irq} 0 77 0 0\ncpu0 1 2\ncpu1 1 2\nintr 5\n");
            fs::write(self.0.path().join("proc/stat"), text).unwrap();
            self
        }

        fn task(&self, path: &str, user: u64, system: u64, nice: i64) -> &Self {
            let text = format!("7 (a) b) S 1 1 1 0 -1 0 1 2 3 4 {user} {system} 0 0 20 {nice} 1 0 5\n");
            fs::write(self.0.path().join("proc/self").join(path), text).unwrap();
            self
        }

        fn root(&self) -> Root {
            Root::new(self.0.path())
        }
    }

    fn shares(others: u32, ours: u32) -> Shares {
        Shares { others: Sensed::Is(others), ours: Sensed::Is(ours) }
    }

    #[test]
    fn nice_time_is_ours_and_the_rest_is_others() {
        let tree = Tree::new();
        tree.machine(1000, 50, 200, 3).task("stat", 500, 40, 0).task("task/7/stat", 10, 1, 0);
        tree.task("task/8/stat", 490, 39, 19);
        let mut cpu = Cpu::new(&tree.root(), &Moment::at_ms(1000));
        // In one second: 60 ticks of user and 11 of system, of which ours are 5 and 4; 90 of our compute are nice.
        tree.machine(1060, 140, 210, 4).task("stat", 595, 44, 0).task("task/7/stat", 15, 2, 0);
        tree.task("task/8/stat", 580, 42, 19);
        assert_eq!(cpu.read(&tree.root(), &Moment::at_ms(2000)), shares(620, 990));
        tree.machine(1060, 140, 210, 4);
        assert_eq!(cpu.read(&tree.root(), &Moment::at_ms(2050)), shares(620, 990), "too soon for ticks");
        assert_eq!(cpu.read(&tree.root(), &Moment::at_ms(2500)), shares(0, 0));
    }

    #[test]
    fn counters_that_cannot_be_are_nonsense_once() {
        let tree = Tree::new();
        tree.machine(1000, 0, 0, 0).task("stat", 0, 0, 0);
        let mut cpu = Cpu::new(&tree.root(), &Moment::at_ms(0));
        tree.machine(900, 0, 0, 0);
        let nonsense =
            Shares { others: Sensed::Broken(Fault::Nonsense), ours: Sensed::Broken(Fault::Nonsense) };
        assert_eq!(cpu.read(&tree.root(), &Moment::at_ms(1000)), nonsense, "backwards");
        tree.machine(1000, 0, 0, 0);
        assert_eq!(cpu.read(&tree.root(), &Moment::at_ms(2000)), shares(1000, 0));
        tree.machine(9000, 0, 0, 0);
        assert_eq!(cpu.read(&tree.root(), &Moment::at_ms(3000)), nonsense, "more than two cores have");
        tree.machine(9000, 0, 0, 0);
        fs::write(tree.0.path().join("proc/stat"), "cpu  no numbers\n").unwrap();
        assert_eq!(cpu.read(&tree.root(), &Moment::at_ms(4000)), nonsense);
        fs::remove_file(tree.0.path().join("proc/stat")).unwrap();
        assert_eq!(cpu.read(&tree.root(), &Moment::at_ms(5000)).others, Sensed::Broken(Fault::Vanished));
        tree.machine(9000, 0, 0, 0);
        assert_eq!(cpu.read(&tree.root(), &Moment::at_ms(6000)).others, Sensed::Broken(Fault::Stale));
        assert_eq!(cpu.read(&tree.root(), &Moment::at_ms(7000)), shares(0, 0));
    }

    #[test]
    fn what_runs_on_cpus_that_are_not_ours_is_nobodys() {
        let tree = Tree::new();
        let machine = |cpu0: u64, cpu1: u64, cpu2: u64| {
            let all = cpu0 + cpu1 + cpu2;
            let text = format!("cpu  {all} 0 0 9\ncpu0 {cpu0} 0 0 9\ncpu1 {cpu1} 0 0 9\ncpu2 {cpu2} 0 0 9\n");
            fs::write(tree.0.path().join("proc/stat"), text).unwrap();
        };
        let allow = |list: &str| {
            let text =
                format!("Name:\tedge\nCpus_allowed:\t7\nCpus_allowed_list:\t{list}\nMems_allowed:\t1\n");
            fs::write(tree.0.path().join("proc/self/status"), text).unwrap();
        };
        tree.task("stat", 0, 0, 0);
        machine(100, 100, 100);
        allow("1-2,9");
        let mut cpu = Cpu::new(&tree.root(), &Moment::at_ms(0));
        machine(200, 150, 110);
        assert_eq!(cpu.read(&tree.root(), &Moment::at_ms(1000)), shares(600, 0));
        allow("0,1,2");
        let stale = Sensed::Broken(Fault::Stale);
        assert_eq!(cpu.read(&tree.root(), &Moment::at_ms(2000)), Shares { others: stale, ours: stale });
        machine(250, 200, 160);
        assert_eq!(cpu.read(&tree.root(), &Moment::at_ms(3000)), shares(1500, 0));
        allow("0-2");
        machine(250, 200, 260);
        assert_eq!(cpu.read(&tree.root(), &Moment::at_ms(4000)), shares(1000, 0), "all are all");
    }

    #[test]
    fn without_proc_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let mut cpu = Cpu::new(&root, &Moment::at_ms(0));
        let none = Shares { others: Sensed::Absent, ours: Sensed::Absent };
        assert_eq!(cpu.read(&root, &Moment::at_ms(1000)), none);
    }

    #[test]
    fn a_frozen_clock_divides_nothing_by_nothing() {
        let tree = Tree::new();
        tree.machine(1000, 0, 0, 0).task("stat", 0, 0, 0);
        let mut cpu = Cpu::new(&tree.root(), &Moment::at_ms(9000));
        tree.machine(1001, 0, 0, 0);
        assert_eq!(cpu.read(&tree.root(), &Moment::at_ms(8000)).others, Sensed::Broken(Fault::Stale));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(cpu |cpu[0-9]? [0-9 ]{0,80}|Cpus_allowed_list:[0-9,-]{0,9}|.|\\)|\n| [0-9]{1,25}){0,40}") {
            let _ = parse_machine(&text, None);
            let _ = parse_machine(&text, parse_allowed(&text).or_else(|| parse_allowed("Cpus_allowed_list: 1")));
            let _ = parse_task(&text);
        }
    }
}
