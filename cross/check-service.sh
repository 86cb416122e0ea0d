#!/usr/bin/env bash
# Boots a Debian tree in systemd-nspawn, installs edge there with install.sh, and watches the service live, work, hang and end.
set -euo pipefail

usage() {
    cat << 'END'
Usage: cross/check-service.sh FOLDER|FILE.deb [TREE]

FOLDER or FILE.deb is what cross/package.sh made, for this machine. TREE is a Debian that debootstrap made, with systemd,
dbus, libpam-systemd and procps in it; it is copied and stays as it is. Without one, debootstrap fetches it. Needs root. The container has a
network of its own, with nothing in it but loopback.
END
}

die() {
    echo "check-service.sh: $*" >&2
    exit 1
}

# What runs in the container, as a service of it; every line that fails ends it.
within() {
    set -euo pipefail
    step() { printf '== %s\n' "$1"; }
    die() {
        echo "failed: $*"
        exit 1
    }
    shows() { systemctl show edge.service -p "$1" --value; }
    until_shows() {
        local _
        for _ in $(seq 200); do
            [ "$(shows "$1")" != "$2" ] || return 0
            # It changes when systemd has heard of it, and nothing tells a script.
            sleep 0.1
        done
        die "$1 is $(shows "$1"), not $2"
    }
    useradd -m owner
    useradd stranger
    program=$([ -d /root/edge ] && echo /usr/local/bin/edge || echo /usr/bin/edge)
    # Of another user, who asks for work.
    as_owner=(env HOME=/home/owner setpriv --reuid owner --regid owner --clear-groups "$program")
    installer=(/root/install.sh "$([ -d /root/edge ] && echo /root/edge || echo /root/edge.deb)")

    step "install"
    "${installer[@]}"
    [ "$(shows ActiveState)/$(shows SubState)/$(shows Type)" = active/running/notify ] || die "it does not run"
    shows StatusText | grep "listens on UDP port"
    # What the machine beside this container does is not its business here.
    cat > /etc/edge/config.toml << 'END'
[budget]
others_percent = 100
memory_percent = 0
temperature = "off"
used.threads = 0
used.duty_percent = 100
END
    systemctl restart edge.service
    stat -c '%A %U:%G %n' /var/lib/edge /run/edge /run/edge/edge.sock
    [ "$(stat -c %a /var/lib/edge /run/edge /run/edge/edge.sock | tr '\n' ' ')" = "700 755 666 " ] || die "modes"

    step "who may what"
    as_stranger() { HOME=/nonexistent EDGE_DATA_DIR=/tmp/none setpriv --reuid stranger --regid stranger --clear-groups "$program" "$@" 2>&1; }
    said=$(as_stranger status) || die "a stranger may not look: $said"
    grep -q "through the system's node" <<< "$said" || die "$said"
    said=$(EDGE_CONTROL_SOCKET=/run/edge/edge.sock EDGE_CONTROL_SHARED=true as_stranger peers) && die "a stranger sees peers"
    grep -q 'group `edge`' <<< "$said" || die "$said"

    step "it works for a member of its swarm, and gives way"
    "${as_owner[@]}" swarm create home
    "${as_owner[@]}" run > /home/owner/log 2>&1 &
    founder=$!
    for _ in $(seq 200); do if "${as_owner[@]}" peers > /dev/null 2>&1; then break; fi; sleep 0.1; done
    "${installer[@]}" --join "$("${as_owner[@]}" swarm invite home)" | tail -n 16
    "${as_owner[@]}" swarm invite home | "${installer[@]}" --join - > /dev/null || die "the same again"
    # The command brings a node of its own, which computes nothing itself.
    kill "$founder"
    wait "$founder" || die "$(cat /home/owner/log)"
    mkdir /home/owner/docs
    for n in $(seq 40); do { echo "text $n"; cat /usr/share/common-licenses/GPL-3; } > /home/owner/docs/$n.txt; done
    chown -R owner /home/owner
    (cd /home/owner && "${as_owner[@]}" embed docs/1.txt docs/2.txt -o out.jsonl --swarm home --others-only > embed.log 2>&1) &
    embed=$!
    seen=''
    while kill -0 "$embed" 2> /dev/null; do
        ps -L -o cls=,ni=,comm= -p "$(shows MainPID)" > /tmp/threads || true
        if grep -q 'IDL' /tmp/threads; then seen=$(sort /tmp/threads | uniq -c); fi
        sleep 0.1
    done
    wait "$embed" || die "$(cat /home/owner/embed.log /home/owner/log)"
    cat /home/owner/embed.log
    [ "$seen" ] || die "no thread of idle class was seen: $(cat /tmp/threads)"
    echo "$seen"
    cat "/proc/$(shows MainPID)/cgroup" "/proc/$(shows MainPID)/autogroup" | grep -E 'edge|nice' || true
    grep -E '^(Seccomp|NoNewPrivs|CapEff)' "/proc/$(shows MainPID)/status"

    step "its sensors are not blinded"
    as_root() { EDGE_CONTROL_SOCKET=/run/edge/edge.sock EDGE_CONTROL_SHARED=true EDGE_DATA_DIR=/tmp/none "$program" "$@"; }
    as_root status --json | tr ',' '\n' | grep -iE '"(idle|presence|others|supply|memory|temp|heat|cpu)[^:]*":' || true
    # The same look with the same bounds, and with none: no sensor may be lost.
    properties=()
    while IFS= read -r line; do properties+=(-p "$line"); done < <(sed -n '/^\[Service\]/,/^\[Install\]/p' \
        "$(shows FragmentPath)" | grep -E '^(Protect|Private|Restrict|SystemCall|Device|Capability|NoNew|Lock|MemoryDeny|User|Group)')
    systemd-run --quiet --pipe --wait "${properties[@]}" -E EDGE_DATA_DIR=/var/tmp/none -p ReadWritePaths=/var/tmp \
        "$program" doctor > /tmp/bounded 2>&1 || true
    setpriv --reuid edge --regid edge --clear-groups env EDGE_DATA_DIR=/var/tmp/none2 "$program" doctor > /tmp/free 2>&1 || true
    states() { grep -E '^(ok|none|broken) ' "$1" | grep -vE ' (store|node|cgroup) ' | awk '{print $1, $2}'; }
    diff <(states /tmp/free) <(states /tmp/bounded) || die "bounded and free differ: $(cat /tmp/bounded)"
    cat /tmp/bounded

    step "a hung node is found and started again"
    mkdir -p /run/systemd/system/edge.service.d
    printf '[Service]\nWatchdogSec=3s\nRestartSec=100ms\n' > /run/systemd/system/edge.service.d/soon.conf
    systemctl daemon-reload
    systemctl restart edge.service
    main=$(shows MainPID)
    # It lives for longer than the watchdog waits.
    sleep 5
    [ "$(shows MainPID)" = "$main" ] || die "a node that lives was taken for dead"
    kill -STOP "$main"
    until_shows NRestarts 1
    until_shows SubState running
    journalctl -u edge.service --no-pager -o cat | grep -i watchdog
    [ "$(shows MainPID)" != "$main" ] || die "the same process"
    rm /run/systemd/system/edge.service.d/soon.conf
    systemctl daemon-reload
    systemctl restart edge.service

    step "killed, it comes back; with wrong settings it does not"
    systemctl show edge.service | grep -E '^Restart(USec|Steps|MaxDelayUSec)='
    kill -KILL "$(shows MainPID)"
    until_shows SubState auto-restart
    cp /etc/edge/config.toml /tmp/config.toml
    echo 'nonsense = 1' >> /etc/edge/config.toml
    systemctl start edge.service && die "it starts with wrong settings"
    [ "$(shows SubState) $(shows ExecMainStatus)" = "failed 2" ] || die "it is $(shows SubState) after $(shows ExecMainStatus)"
    cp /tmp/config.toml /etc/edge/config.toml
    systemctl start edge.service

    step "stop"
    begun=$EPOCHREALTIME
    systemctl stop edge.service
    echo "in $(awk "BEGIN { print $EPOCHREALTIME - $begun }") s"
    [ "$(shows Result)" = success ] || die "it ended with $(shows Result)"
    journalctl -u edge.service --no-pager -o cat | grep "giving back" | tail -n 1

    step "a user's own node, from the user's own unit"
    loginctl enable-linger owner
    user=(env XDG_RUNTIME_DIR="/run/user/$(id -u owner)" HOME=/home/owner setpriv --reuid owner --regid owner --clear-groups systemctl --user)
    for _ in $(seq 100); do if "${user[@]}" is-system-running > /dev/null 2>&1; then break; fi; sleep 0.1; done
    "${user[@]}" start edge.service
    "${user[@]}" show edge.service -p ActiveState,StatusText,ControlGroup
    "${as_owner[@]}" swarm list
    "${user[@]}" stop edge.service
    [ "$("${user[@]}" show edge.service -p Result --value)" = success ] || die "the user's node did not end well"

    step "uninstall"
    /root/install.sh --uninstall
    [ -s /var/lib/edge/identities/default/identity.pem ] || die "the identity is gone"
    /root/install.sh --uninstall --purge
    ! find / -xdev -iname '*edge*' -not -path '/proc/*' -not -path '/root/*' -not -path '/home/*' -not -path '/tmp/*' -not -path '/var/tmp/*' \
        -not -path '/usr/share/zoneinfo/*' -newer /root/install.sh | grep . || die "purged, and there is more"
    step "done"
}

if [ "${1:-}" = --within ]; then
    within
    exit
fi
(($# == 1 || $# == 2)) || { usage >&2 && exit 2; }
[ "$(id -u)" = 0 ] || die "only root boots a container: run it with sudo"
command -v systemd-nspawn > /dev/null || die "there is no systemd-nspawn: apt-get install systemd-container"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/edge-check
if [ "${2:-}" ]; then
    cp -a --reflink=auto "$2" "$root"
else
    command -v debootstrap > /dev/null || die "there is no debootstrap: apt-get install debootstrap"
    debootstrap --variant=minbase --include=systemd-sysv,dbus,libpam-systemd,procps bookworm "$root" > "$work/log" || {
        tail "$work/log" >&2
        die "debootstrap made no tree"
    }
fi
[ ! -d "$1" ] || cp -r "$1" "$root/root/edge"
[ -d "$1" ] || cp "$1" "$root/root/edge.deb"
cp "$0" "$root/root/check-service.sh"
install -m 755 "$(dirname "$0")/install.sh" "$root/root/install.sh"
cat > "$root/etc/systemd/system/check.service" << 'EOF'
[Unit]
After=multi-user.target dbus.service systemd-logind.service
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/bin/bash /root/check-service.sh --within
StandardOutput=file:/root/log
StandardError=inherit
TimeoutStartSec=10min
EOF
mkdir -p "$root/etc/systemd/system/default.target.wants"
ln -s ../check.service "$root/etc/systemd/system/default.target.wants/check.service"
timeout 700 systemd-nspawn --quiet --directory="$root" --machine="edge-check-$$" --register=no --keep-unit --private-network --boot \
    > "$work/console" 2>&1 < /dev/null || true
cat "$root/root/log" || tail -n 40 "$work/console"
[ "$(tail -n 1 "$root/root/log")" = "== done" ] || die "the service failed where the above ends"
