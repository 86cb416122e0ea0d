#!/usr/bin/env bash
# Runs what build.sh built for a target, emulated where it is foreign, against the program for this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
source cross/targets.sh

usage() {
    cat << 'EOF'
Usage: cross/check.sh [--root FOLDER] [--host NAME]... [--own PROGRAM] aarch64|armv7|x86_64

The program of that target says its version, makes an identity and embeds the short golden texts of the model: their vectors
must be those of the program for this machine (cosine 0.9999). Then it works for it: a job goes from an aggregator of this
machine to a worker of that target, over loopback. Where `build.sh --test` has built them, the tests of the store run too.

  --root FOLDER   run it with this folder as its root, which needs to be root; FOLDER/edge-check is written
  --own PROGRAM   the program for this machine, an older edge perhaps [default: what cross/build.sh wrote]
  --host NAME     where the worker finds the aggregator [default: 127.0.0.1]; all names are tried, one must lead there

Needs what cross/build.sh writes, for that target and for this machine. Takes some minutes: qemu computes 100 times slower.
With QEMU_PAGESIZE in the environment, qemu shows pages of that size.
EOF
}

root='' own='' hosts=() name=''
while (($#)); do
    case $1 in
        -h | --help) usage && exit ;;
        --root) : "${2:?--root wants a folder}" && root=$(realpath "$2") && shift ;;
        --host) hosts+=("${2:?--host wants a name}") && shift ;;
        --own) : "${2:?--own wants a program}" && own=$(realpath "$2") && shift ;;
        -*) usage >&2 && exit 2 ;;
        *) name=$1 ;;
    esac
    shift
done
[ "$name" ] || { usage >&2 && exit 2; }
((${#hosts[@]})) || hosts=(127.0.0.1)
describe "$(uname -m)"
own=${own:-$dist/edge}
describe "$name"
need python3 ${runner:+qemu-user-static}
for program in "$own" "$dist/edge"; do
    [ -x "$program" ] || die "there is no $program: run cross/build.sh first"
done

# Each program stands beside the model, as it is installed, and has a data folder of its own; no settings of this user.
home=${root:-$(mktemp -d)}
at=$home
here=$home/edge-check
rm -rf "$here"
mkdir -p "$here/one/models" "$here/other/models" "$here/texts" "$here/job" "$home/tmp"
cp "$own" "$here/one/edge"
cp "$dist/edge" "$here/other/edge"
cp -r models/all-minilm-l6-v2 "$here/one/models"
cp -r models/all-minilm-l6-v2 "$here/other/models"
start=()
if [ "$root" ]; then
    at=''
    start=(chroot "$root")
    [ -z "$runner" ] || cp "$(command -v "$runner")" "$here/other/"
    runner=${runner:+/edge-check/other/$runner}
fi
[ -z "$runner" ] || start+=("$runner")

nodes=()
end() {
    ((${#nodes[@]} == 0)) || kill "${nodes[@]}" 2> /dev/null || true
    wait
    rm -rf "$here"
    [ "$root" ] || rm -rf "$home"
}
trap end EXIT
step() { printf '\n== %s: %s (%s s)\n' "$target" "$1" "$SECONDS"; }

export HOME=$at/edge-check XDG_CONFIG_HOME=$at/edge-check/config
# Lent whole, whatever else this machine does.
export EDGE_BUDGET_USED_THREADS=0 EDGE_BUDGET_USED_DUTY_PERCENT=100 EDGE_BUDGET_OTHERS_PERCENT=100
export EDGE_BUDGET_MEMORY_PERCENT=0 EDGE_BUDGET_TEMPERATURE=off EDGE_BUDGET_BATTERY_PERCENT=0 EDGE_LEND_PRIORITY=normal
data=$at/edge-check/other/data
# A program's own process, so that a node is ended by its number.
one() { cd "$home" && exec "$here/one/edge" --data-dir "$here/one/data" "$@"; }
other() { cd "$home" && exec "${start[@]}" "$at/edge-check/other/edge" --data-dir "$data" "$@"; }

step "version and identity"
if [ "${QEMU_PAGESIZE:-}" ]; then
    # With pages larger than its own, qemu maps no more of a file than there is at that moment, where a kernel lets it grow into
    # the map: who makes a store reads behind its end. The store is whole by then, and is as long as its map from then on.
    (other store info) > "$here/first" 2>&1 || grep -q 'Segmentation fault' "$here/first" || { cat "$here/first" >&2 && exit 1; }
fi
(other --version)
(other id)

if [ -x "$dist/edge-tests" ] && [ -z "$root${QEMU_PAGESIZE:-}" ]; then
    step "tests of the store"
    "${start[@]}" "$dist/edge-tests" store:: --test-threads 2
fi

step "golden texts of at most 16 tokens"
python3 - models/all-minilm-l6-v2/model.toml "$here/texts" << 'EOF'
import sys, tomllib
from pathlib import Path
manifest, folder = map(Path, sys.argv[1:])
short = [text["text"] for text in tomllib.loads(manifest.read_text())["golden"] if len(text["ids"]) <= 16]
# A file with a zero byte counts as binary, and one of white space has no chunk.
for n, text in enumerate(text for text in short if text.strip() and "\0" not in text):
    (folder / f"{n}.txt").write_bytes(text.encode())
EOF
(one embed edge-check/texts -o "$here/one.jsonl")
(other embed edge-check/texts --threads 1 -o "$at/edge-check/other.jsonl")
python3 cross/compare.py "$here/one.jsonl" "$here/other.jsonl" --golden models/all-minilm-l6-v2/model.toml
if [ "$target" != armv7 ]; then
    # LMDB's files go from machine to machine of one word size, whatever the pages of each.
    (cd "$home" && "$here/one/edge" --data-dir "$here/other/data" embed edge-check/texts -o "$here/again.jsonl")
    cmp "$here/other.jsonl" "$here/again.jsonl"
    (other store info)
fi

step "a job for another machine, found at ${hosts[*]}"
# Waits for words in a node's log; a node that has ended will never write them.
await() {
    local node=$1 log=$2 words=$3 tries
    for ((tries = 0; tries < 1800; tries++)); do
        if grep -q -- "$words" "$log"; then return; fi
        kill -0 "$node" 2> /dev/null || { cat "$log" >&2 && die "the node has ended, without \`$words\`"; }
        sleep 0.1
    done
    cat "$log" >&2
    die "no \`$words\` in three minutes"
}
export EDGE_NETWORK_MDNS=false
(one swarm create home)
ticket=$(one swarm invite home)
id=$(one id)
touch "$here/one.log" "$here/other.log"
(one run --threads 1 -v) 2> "$here/one.log" &
nodes+=($!)
await "${nodes[0]}" "$here/one.log" "listens on UDP port"
port=$(grep -o 'listens on UDP port [0-9]*' "$here/one.log" | grep -o '[0-9]*$')
(other swarm join "$ticket")
# It has let the worker in; from now on it asks, by a command that has the same port.
kill "${nodes[0]}"
wait "${nodes[0]}" || die "the aggregator did not end well"
nodes=()
# mDNS is not emulated, so the worker is told where to go.
bootstrap=()
for host in "${hosts[@]}"; do bootstrap+=(--bootstrap "$id@$host:$port"); done
(other run --threads 1 -v "${bootstrap[@]}") 2> "$here/other.log" &
nodes+=($!)
await "${nodes[0]}" "$here/other.log" "listens on UDP port"
printf 'The lamp is lit at dusk.\n' > "$here/job/one.txt"
printf 'Ships turn to the harbour.\n' > "$here/job/two.txt"
if ! (one embed edge-check/job --swarm home --others-only -o "$here/swarm.jsonl"); then
    cat "$here/other.log" >&2
    die "the job did not come back"
fi
(cd "$home" && "$here/one/edge" --data-dir "$here/alone" embed edge-check/job -o "$here/alone.jsonl")
python3 cross/compare.py "$here/alone.jsonl" "$here/swarm.jsonl"
for host in "${hosts[@]}"; do
    # Names with the ending of mDNS, or of nowhere, lead nowhere here; that they are asked for must do no harm.
    case $host in
        *.local | *.invalid) grep -m1 -o "bootstrap.*$host.*" "$here/other.log" || die "$host was not asked for" ;;
        *) ! grep "bootstrap.*@$host:" "$here/other.log" || die "$host does not resolve" ;;
    esac
done
# Whoever is told to end does so of itself, with everything delivered.
kill "${nodes[0]}"
wait "${nodes[0]}" || die "the worker did not end well"
nodes=()
step "all is well"
