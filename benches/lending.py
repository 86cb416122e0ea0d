"""What lending costs the owner of a machine: whether its budget is held, what others lose to it, how fast it stops.

    python3 benches/lending.py budget EDGE [--minutes 10] [--duty 50]
    python3 benches/lending.py hogs EDGE [--rounds 5] [--seconds 20] [--cgroup 1]
    python3 benches/lending.py stop EDGE [--rounds 10] [--quota 5]

EDGE is the program. Hosts are network namespaces as in `swarm.py`, which says what is needed. `budget` lends one thread
for a share of its time and looks at the CPU that it has in each 10 s. `hogs` runs one loop a core, pinned, in a session of
its own, in turn with and without a worker that has all the work it wants and does not yield by rule: what the loops lose is
what giving way costs; with `--cgroup 1` the worker stands in a cgroup with `cpu.idle`, as the service's unit has it, and
the loops in another one. `stop` unplugs a laptop that is made of files, and waits until its CPU time stands; with `--quota`
a cgroup gives the whole worker so many percent of the CPU that its threads would take. The last line is JSON.
"""

import argparse
import multiprocessing
import os
import signal
import statistics
import sys
import time
from pathlib import Path

from swarm import Host, Process, measure, swarm, write_documents

# In which the budget is held.
WINDOW_S = 10.0
# Between two looks at the CPU time.
LOOK_S = 0.1
# A worker that has computed nothing for so long has stopped.
STILL_S = 1.0
CORES = str(len(os.sched_getaffinity(0)))
# Documents that last for as long as anybody measures.
DOCUMENTS = 4000


def cpu_s(process: Process, prefix: str = "") -> float:
    """CPU seconds of its threads whose names begin so."""
    total = 0
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        try:
            if (task / "comm").read_text().startswith(prefix):
                total += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            continue
    return total / 1e9


class Cgroup:
    """A control group of the CPU, version 1 or 2; needs root."""

    def __init__(self, name: str):
        self.is_v1 = Path("/sys/fs/cgroup/cpu").is_dir()
        base = Path("/sys/fs/cgroup/cpu" if self.is_v1 else "/sys/fs/cgroup")
        if not self.is_v1:
            (base / "cgroup.subtree_control").write_text("+cpu")
        self.path = base / f"edge-bench-{name}"
        self.path.mkdir(exist_ok=True)

    def idle(self) -> "Cgroup":
        (self.path / "cpu.idle").write_text("1")
        return self

    def quota(self, cores: float) -> "Cgroup":
        period = 100_000
        files = {"cpu.cfs_period_us": f"{period}", "cpu.cfs_quota_us": f"{int(period * cores)}"} if self.is_v1 else {"cpu.max": f"{int(period * cores)} {period}"}
        for file, text in files.items():
            (self.path / file).write_text(text)
        return self

    def take(self, pid: int) -> None:
        (self.path / "cgroup.procs").write_text(str(pid))


def working(edge: Path, homes: Path, settings: dict) -> tuple[Host, Process, Process]:
    """A worker that computes all that a founder wants: its host, it, and the founder's command."""
    founder, worker = swarm(2, edge, homes)
    write_documents(founder.home / "docs", range(DOCUMENTS))
    # A thread a core, whatever is lent: those that take turns must not have more than one that does not.
    lent = worker.start("run", "--threads", CORES, "-v", settings=settings)
    lent.wait_for("listens on UDP port")
    asked = founder.start("embed", "docs", "-o", "out.jsonl", "--swarm", "home", "--others-only", "--json")
    until = time.monotonic() + 60
    while cpu_s(lent, "compute-") < 1:
        if time.monotonic() > until:
            sys.exit(f"the worker does not compute: {lent.log.read_text()}")
        time.sleep(0.05)
    return worker, lent, asked


def budget(arguments: argparse.Namespace, homes: Path) -> dict:
    duty = {"EDGE_BUDGET_IDLE_THREADS": "1", "EDGE_BUDGET_USED_THREADS": "1"}
    duty |= {f"EDGE_BUDGET_{when}_DUTY_PERCENT": str(arguments.duty) for when in ("IDLE", "USED")}
    _, lent, asked = working(arguments.edge, homes, duty)
    time.sleep(WINDOW_S)
    looks = []
    until = time.monotonic() + 60 * arguments.minutes
    while time.monotonic() < until and lent.popen.poll() is None and asked.popen.poll() is None:
        looks.append((time.monotonic(), cpu_s(lent, "compute-"), cpu_s(lent)))
        time.sleep(LOOK_S)
    allowed = arguments.duty / 100
    windows, at = [], 0
    for now, compute, _ in looks:
        while looks[at + 1][0] <= now - WINDOW_S:
            at += 1
        then, before, _ = looks[at]
        if now - then >= WINDOW_S:
            windows.append((compute - before) / (now - then) / allowed)
    seconds = looks[-1][0] - looks[0][0]
    result = {
        "seconds": seconds,
        "windows": len(windows),
        "ratio_max": max(windows),
        "ratio_min": min(windows),
        "ratio_mean": (looks[-1][1] - looks[0][1]) / seconds / allowed,
        "whole_process_ratio": (looks[-1][2] - looks[0][2]) / seconds / allowed,
    }
    print(f"one thread at {arguments.duty} % for {seconds:.0f} s, CPU of the compute threads against the budget:")
    print(f"  in 10 s at most {result['ratio_max']:.3f}, at least {result['ratio_min']:.3f}, in all {result['ratio_mean']:.3f}; the whole process {result['whole_process_ratio']:.3f}")
    asked.popen.kill()
    lent.end(stop=True)
    return result


def spin(core: int, start, seconds: float, counts, group: Cgroup | None) -> None:
    os.setsid()
    if group:
        group.take(os.getpid())
    os.sched_setaffinity(0, {core})
    start.wait()
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        for _ in range(10_000):
            count += 1
    counts[core] = count


def spun(seconds: float, group: Cgroup | None = None) -> int:
    """What loops on all cores count together."""
    cores = sorted(os.sched_getaffinity(0))
    start, counts = multiprocessing.Event(), multiprocessing.Array("q", max(cores) + 1)
    hogs = [multiprocessing.Process(target=spin, args=(core, start, seconds, counts, group)) for core in cores]
    [hog.start() for hog in hogs]
    time.sleep(0.5)
    start.set()
    [hog.join() for hog in hogs]
    return sum(counts)


def hogs(arguments: argparse.Namespace, homes: Path) -> dict:
    settings = {"EDGE_LEND_PRIORITY": "idle"}
    founder, worker = swarm(2, arguments.edge, homes)
    write_documents(founder.home / "docs", range(DOCUMENTS))
    lent = worker.start("run", "--threads", CORES, "-v", settings=settings)
    lent.wait_for("listens on UDP port")
    group = Cgroup("hogs") if arguments.cgroup else None
    if group:
        Cgroup("edge").idle().take(lent.pid)
    asked = founder.start("embed", "docs", "-o", "out.jsonl", "--swarm", "home", "--others-only", "--json")
    while cpu_s(lent, "compute-") < 1:
        time.sleep(0.05)
    rounds = []
    for n in range(arguments.rounds):
        with_worker = spun(arguments.seconds, group)
        # Stopped, not paused: nothing of it runs.
        [process.popen.send_signal(signal.SIGSTOP) for process in (lent, asked)]
        alone = spun(arguments.seconds, group)
        [process.popen.send_signal(signal.SIGCONT) for process in (lent, asked)]
        rounds.append({"loss": 1 - with_worker / alone, "alone": alone, "with_worker": with_worker})
        print(f"round {n + 1}: {rounds[-1]}", file=sys.stderr, flush=True)
    loss = statistics.median(round["loss"] for round in rounds)
    print(f"one loop a core loses {100 * loss:.2f} % to a worker on all cores, median of {arguments.rounds} rounds in turn, {arguments.seconds} s each")
    # With the rule on it stops, and says why.
    lent.end(stop=True)
    asked.popen.kill()
    strict = worker.start("run", "--threads", CORES, "-v", settings=settings | {"EDGE_BUDGET_OTHERS_PERCENT": "25"})
    strict.wait_for("listens on UDP port")
    spun(8)
    strict.wait_for("of the CPU")
    said = next(line for line in strict.log.read_text().splitlines() if "of the CPU" in line)
    print(f"with the rule on: {said.split('why=')[1]}")
    strict.end(stop=True)
    return {"loss": loss, "rounds": rounds}


def put(root: Path, file: str, text: str) -> None:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text + "\n")
    new.rename(path)


def plug(root: Path, is_in: bool) -> None:
    supply = "sys/class/power_supply"
    put(root, f"{supply}/BAT0/status", "Charging" if is_in else "Discharging")
    put(root, f"{supply}/AC/online", "1" if is_in else "0")


def stop(arguments: argparse.Namespace, homes: Path) -> dict:
    root = homes / "machine"
    for file, text in [("AC/type", "Mains"), ("BAT0/type", "Battery"), ("BAT0/present", "1"), ("BAT0/capacity", "64")]:
        put(root, f"sys/class/power_supply/{file}", text)
    plug(root, True)
    settings = {"EDGE_TEST_SENSORS": str(root), "EDGE_BUDGET_BATTERY_PERCENT": "never"}
    _, lent, asked = working(arguments.edge, homes, settings)
    if arguments.quota:
        # Slowed down only now, or loading the model alone would take a minute.
        Cgroup("edge").quota(int(CORES) * arguments.quota / 100).take(lent.pid)
    took = []
    for n in range(arguments.rounds):
        time.sleep(1.5 + 0.13 * n)
        plug(root, False)
        begun = last = time.monotonic()
        before = cpu_s(lent, "compute-")
        while time.monotonic() - last < STILL_S:
            now = cpu_s(lent, "compute-")
            # Threads that have ended take their time with them.
            if now > before:
                last = time.monotonic()
            before = now
            time.sleep(0.005)
        took.append(last - begun)
        print(f"round {n + 1}: {took[-1]:.3f} s", file=sys.stderr, flush=True)
        plug(root, True)
        computed = cpu_s(lent, "compute-")
        while cpu_s(lent, "compute-") <= computed:
            time.sleep(0.05)
    print(f"from unplugging to the last CPU time of a compute thread: median {statistics.median(took):.3f} s, at most {max(took):.3f} s of {len(took)}")
    asked.popen.kill()
    lent.end(stop=True)
    return {"median_s": statistics.median(took), "max_s": max(took)}


if __name__ == "__main__":
    measure(
        __doc__,
        {"budget": budget, "hogs": hogs, "stop": stop},
        {"minutes": 10.0, "duty": 50, "rounds": 5, "seconds": 20.0, "cgroup": 0, "quota": 0.0},
    )
