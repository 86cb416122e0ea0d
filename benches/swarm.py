"""What a swarm costs: how much of its workers' speed arrives, what goes over the wire and to the disk, what idling takes.

    python3 benches/swarm.py overhead EDGE [--rounds 3] [--documents 24]
    python3 benches/swarm.py idle EDGE [--minutes 10] [--peers 4]

EDGE is the program. Each host is a network namespace of its own on one bridge; needs root, or a kernel that lets users
have namespaces, and `unshare`, `nsenter`, `ip`. `overhead` counts as speed what two processes of one thread do at the
same time, each alone on its half of the documents, and in turn with that what the swarm does with all of them: a ratio,
for both suffer alike from whatever else the machine does. An aggregator computes with one thread at least, so three
threads share the cores in the swarm. The last line is JSON.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = "sea tower light ship wind keeper stone night storm calm harbour lamp".split()
# One job of some 21 chunks.
DOCUMENT_BYTES = 24_000
# Longest wait for something that takes seconds.
PATIENCE_S = 60
# After work, until connections and stores have nothing left to do, and the model is out of memory.
SETTLE_S = 150
# A machine that is lent whole, whatever else it does.
LENDS_ALL = {
    "EDGE_BUDGET_USED_THREADS": "0",
    "EDGE_BUDGET_USED_DUTY_PERCENT": "100",
    "EDGE_BUDGET_OTHERS_PERCENT": "100",
    "EDGE_BUDGET_MEMORY_PERCENT": "0",
    "EDGE_BUDGET_TEMPERATURE": "off",
    "EDGE_BUDGET_BATTERY_PERCENT": "0",
    "EDGE_LEND_PRIORITY": "normal",
}
APART = "EDGE_BENCH_APART"


class Process:
    """A running edge, and what it has cost when it has ended."""

    def __init__(self, host: "Host", words: list[str], settings: dict):
        self.log = host.home / f"log-{time.monotonic_ns()}"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("EDGE_")}
        environment |= {"HOME": str(host.home), "EDGE_DATA_DIR": str(host.home / "data")} | LENDS_ALL | settings
        self.out = self.log.with_suffix(".out")
        with self.log.open("w") as err, self.out.open("w") as out:
            inside = ["nsenter", "-t", str(host.holder.pid), "-n", "--"]
            # nsenter becomes edge: the id is the program's own.
            self.popen = subprocess.Popen([*inside, str(host.edge), *words], env=environment, cwd=host.home, stdout=out, stderr=err, start_new_session=True)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def wait_for(self, words: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while words not in self.log.read_text():
            if time.monotonic() > until:
                sys.exit(f"no {words!r} in {self.log.read_text()}")
            time.sleep(0.01)

    def end(self, stop: bool) -> dict:
        """CPU seconds and bytes that it gave to the disk, all of it; stops it, or waits for its end."""
        if stop:
            self.popen.send_signal(signal.SIGTERM)
        _, status, used = os.wait4(self.pid, 0)
        self.popen.returncode = os.waitstatus_to_exitcode(status)
        if self.popen.returncode != 0:
            sys.exit(f"ended with {self.popen.returncode}: {self.log.read_text()}")
        # The kernel counts blocks of 512 bytes, as /proc/PID/io does bytes.
        return {"cpu_s": used.ru_utime + used.ru_stime, "disk_bytes": used.ru_oublock * 512}


class Host:
    """A network namespace with a cable to the bridge, and a home."""

    def __init__(self, n: int, edge: Path, homes: Path):
        self.n, self.edge, self.home = n, edge, homes / str(n)
        self.home.mkdir()
        own = os.readlink("/proc/self/ns/net")
        self.holder = subprocess.Popen(["unshare", "-n", "--", "sleep", "infinity"])
        while os.readlink(f"/proc/{self.holder.pid}/ns/net") == own:
            time.sleep(0.001)
        ip(f"link add cable{n} type veth peer name eth0 netns {self.holder.pid}")
        ip(f"link set cable{n} master bridge up")
        for words in [f"addr add 10.77.0.{n}/24 dev eth0", "link set eth0 up", "link set lo up", "route add default dev eth0"]:
            subprocess.run(["nsenter", "-t", str(self.holder.pid), "-n", "--", "ip", *words.split()], check=True)

    def start(self, *words: str, settings: dict = {}) -> Process:
        return Process(self, list(words), settings)

    def run(self, *words: str) -> str:
        process = self.start(*words)
        process.end(stop=False)
        return process.out.read_text()

    def lend(self, settings: dict = {}) -> Process:
        lent = self.start("run", "--threads", "1", "-v", settings=settings)
        lent.wait_for("listens on UDP port")
        return lent

    def wire_bytes(self) -> int:
        """Bytes on its cable, both ways, Ethernet headers included."""
        link = json.loads(subprocess.run(["ip", "-s", "-j", "link", "show", "dev", f"cable{self.n}"], check=True, capture_output=True).stdout)
        return sum(link[0]["stats64"][way]["bytes"] for way in ("rx", "tx"))


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def swarm(count: int, edge: Path, homes: Path) -> list[Host]:
    """Hosts in the swarm `home`, the first of which has founded it."""
    ip("link add bridge type bridge")
    ip("link set bridge up")
    hosts = [Host(n, edge, homes) for n in range(1, count + 1)]
    hosts[0].run("swarm", "create", "home")
    ticket = hosts[0].run("swarm", "invite", "home", "--uses", "99").strip()
    admits = hosts[0].lend()
    for host in hosts[1:]:
        host.run("swarm", "join", ticket)
    admits.end(stop=True)
    return hosts


def write_documents(folder: Path, numbers: range) -> None:
    folder.mkdir()
    for n in numbers:
        rng, text = random.Random(n), []
        while sum(map(len, text)) < DOCUMENT_BYTES:
            text.append(" ".join(rng.choices(WORDS, k=9)) + rng.choice([". ", ".\n\n", ". ", ". "]))
        (folder / f"{n:04}.txt").write_text("".join(text))


def embed(host: Host, folder: str, *more: str) -> Process:
    return host.start("embed", folder, "-o", "out.jsonl", "--fresh", "--threads", "1", "--json", *more)


def summary(process: Process) -> dict:
    return json.loads(process.out.read_text())


def median(rounds: list[dict], key: str) -> float:
    return statistics.median(measured[key] for measured in rounds)


def overhead(arguments: argparse.Namespace, homes: Path) -> dict:
    hosts = swarm(3, arguments.edge, homes)
    aggregator, *workers = hosts
    half = arguments.documents // 2
    write_documents(aggregator.home / "docs", range(2 * half))
    for at, worker in enumerate(workers):
        write_documents(worker.home / "docs", range(at * half, (at + 1) * half))
    rounds = []
    for n in range(arguments.rounds):
        alone = [embed(worker, "docs") for worker in workers]
        alone_cost = [process.end(stop=False) for process in alone]
        alone_sum = [summary(process) for process in alone]
        lent = [worker.lend() for worker in workers]
        wire = [host.wire_bytes() for host in hosts]
        asked = embed(aggregator, "docs", "--swarm", "home")
        aggregator_cost = asked.end(stop=False)
        wire = [host.wire_bytes() - before for host, before in zip(hosts, wire)]
        worker_cost = [process.end(stop=True) for process in lent]
        shared = summary(asked)
        chunks = shared["chunks_computed"]
        remote = sum(count for peer, count in shared["workers"].items() if peer != shared["own"])
        alone_chunks = sum(one["chunks_computed"] for one in alone_sum)
        measured = {
            "chunks": chunks,
            "remote_chunks": remote,
            "alone_chunks_per_s": sum(one["chunks_per_second"] for one in alone_sum),
            "swarm_chunks_per_s": shared["chunks_per_second"],
            "alone_cpu_ms_a_chunk": 1e3 * sum(cost["cpu_s"] for cost in alone_cost) / alone_chunks,
            "swarm_cpu_ms_a_chunk": 1e3 * (aggregator_cost["cpu_s"] + sum(cost["cpu_s"] for cost in worker_cost)) / chunks,
            "wire_bytes_per_1000_remote_chunks": 1e3 * wire[0] / remote,
            "aggregator_disk_bytes_per_1000_chunks": 1e3 * aggregator_cost["disk_bytes"] / chunks,
            "worker_disk_bytes_per_1000_chunks": 1e3 * sum(cost["disk_bytes"] for cost in worker_cost) / remote,
        }
        measured["ratio"] = measured["swarm_chunks_per_s"] / measured["alone_chunks_per_s"]
        measured["cpu_ratio"] = measured["swarm_cpu_ms_a_chunk"] / measured["alone_cpu_ms_a_chunk"]
        print(f"round {n + 1}: {measured}", file=sys.stderr, flush=True)
        rounds.append(measured)
    result = {key: median(rounds, key) for key in rounds[0]}
    print(f"median of {arguments.rounds} rounds in turn, {result['chunks']:.0f} chunks, {result['remote_chunks']:.0f} of them by the two workers")
    print(f"two threads alone       {result['alone_chunks_per_s']:8.1f} chunks/s {result['alone_cpu_ms_a_chunk']:8.1f} CPU ms a chunk")
    print(f"two workers, aggregator {result['swarm_chunks_per_s']:8.1f} chunks/s {result['swarm_cpu_ms_a_chunk']:8.1f} CPU ms a chunk")
    print(f"ratio                   {result['ratio']:8.3f}          {result['cpu_ratio']:8.3f}")
    print(f"on the aggregator's cable, per 1,000 remote chunks   {result['wire_bytes_per_1000_remote_chunks'] / 1e6:8.2f} MB")
    print(f"to the aggregator's disk, per 1,000 chunks           {result['aggregator_disk_bytes_per_1000_chunks'] / 1e6:8.2f} MB")
    print(f"to the workers' disks, per 1,000 remote chunks       {result['worker_disk_bytes_per_1000_chunks'] / 1e6:8.2f} MB")
    return result


def look(process: Process) -> dict:
    """What /proc says of a process now."""
    proc = Path(f"/proc/{process.pid}")
    threads = {}
    for task in (proc / "task").iterdir():
        status = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
        name = f"{status['Name'].strip()} {task.name}"
        threads[name] = int(status["voluntary_ctxt_switches"])
    # The name stands in brackets and may hold anything.
    stat = (proc / "stat").read_text().rsplit(")", 1)[1].split()
    memory = dict(line.split(":", 1) for line in (proc / "smaps_rollup").read_text().splitlines()[1:])
    io = dict(line.split(": ") for line in (proc / "io").read_text().splitlines())
    return {
        "at": time.monotonic(),
        "threads": threads,
        "cpu_s": (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"),
        "pss_bytes": int(memory["Pss"].split()[0]) << 10,
        "disk_bytes": int(io["write_bytes"]),
    }


def idle(arguments: argparse.Namespace, homes: Path) -> dict:
    hosts = swarm(1 + arguments.peers, arguments.edge, homes)
    founder, *others = hosts
    lent = [host.lend() for host in others]
    # It works until all is delivered, and has that many peers afterwards.
    write_documents(founder.home / "docs", range(2 * arguments.peers))
    asked = embed(founder, "docs", "--swarm", "home")
    asked.end(stop=False)
    print(f"worked: {summary(asked)['workers']}", file=sys.stderr, flush=True)
    lent.append(founder.lend())
    node, host = lent[0], others[0]
    time.sleep(SETTLE_S)
    peers = {line.split("peer=")[1].split()[0] for line in node.log.read_text().splitlines() if "peer connected" in line}
    before, wire = look(node), host.wire_bytes()
    time.sleep(60 * arguments.minutes)
    after, wire = look(node), host.wire_bytes() - wire
    seconds = after["at"] - before["at"]
    switches = {name: (count - before["threads"].get(name, 0)) / seconds for name, count in after["threads"].items()}
    result = {
        "seconds": seconds,
        "peers": len(peers),
        "switches_per_s": sum(switches.values()),
        "switches_per_s_by_thread": switches,
        "cpu_ms_per_minute": 60e3 * (after["cpu_s"] - before["cpu_s"]) / seconds,
        "pss_bytes": after["pss_bytes"],
        "disk_bytes": after["disk_bytes"] - before["disk_bytes"],
        "wire_bytes_per_s": wire / seconds,
    }
    print(f"an idle node that has worked, {result['peers']} peers, {seconds:.0f} s")
    for name, per_s in sorted(switches.items(), key=lambda switch: -switch[1]):
        print(f"  {name:24} {per_s:8.3f} voluntary context switches a second")
    print(f"  {'all threads':24} {result['switches_per_s']:8.3f}")
    print(f"CPU {result['cpu_ms_per_minute']:.1f} ms a minute, PSS {result['pss_bytes'] / 2**20:.1f} MiB, {result['disk_bytes']} bytes to the disk, {result['wire_bytes_per_s']:.0f} bytes/s on its cable")
    for process in lent:
        process.end(stop=True)
    return result


def measure(description: str, measures: dict, options: dict) -> None:
    """Measures what was asked for, in a network namespace of its own; `options` are numbers with their defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(measures))
    parser.add_argument("edge", type=lambda path: Path(path).resolve(strict=True))
    for name, default in options.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    arguments = parser.parse_args()
    if APART not in os.environ:
        flags = "-n" if os.geteuid() == 0 else "-Urn"
        os.execvpe("unshare", ["unshare", flags, "--", sys.executable, *sys.argv], os.environ | {APART: "1"})
    ip("link set lo up")
    homes = Path(tempfile.mkdtemp(prefix="edge-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    try:
        print(json.dumps(measures[arguments.what](arguments, homes)))
    finally:
        # What still runs here, of ours: holders of namespaces, and nodes if something went wrong.
        for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        shutil.rmtree(homes, ignore_errors=True)


if __name__ == "__main__":
    measure(__doc__, {"overhead": overhead, "idle": idle}, {"rounds": 3, "documents": 24, "minutes": 10.0, "peers": 4})
