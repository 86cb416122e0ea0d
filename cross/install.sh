#!/usr/bin/env bash
# Installs edge as a service of this machine, joins a swarm, and shows what it does. Fetches nothing; may be run again.
set -euo pipefail

usage() {
    cat << 'END'
Usage: install.sh [--join TICKET|-|public] [FOLDER|FILE.deb]
       install.sh --uninstall [--purge]

Installs from a folder (edge, models/, systemd/: the one that this script is in, if none is named) to /usr/local, or from a
Debian package; joins a swarm, or the public pool; enables the service and starts it; shows `edge status`. What is there
already is left as it is, so the same command may be given again, and a newer folder or package is an upgrade.

  --join -      the ticket comes by stdin, where other users of this machine do not see it
  --uninstall   remove the program and the service; identity, swarms, queue and settings stay
  --purge       remove those too
END
}

say() { echo "install.sh: $*"; }

die() {
    echo "install.sh: $*" >&2
    exit 1
}

join='' uninstall='' purge='' source=''
while (($#)); do
    case $1 in
        -h | --help) usage && exit ;;
        --join)
            join=${2:-}
            [ "$join" ] || die "--join takes a ticket, as \`edge swarm invite\` prints it, \`-\` for stdin, or \`public\`"
            shift
            ;;
        --uninstall) uninstall=yes ;;
        --purge) purge=yes ;;
        -*) usage >&2 && exit 2 ;;
        *)
            [ -z "$source" ] || { usage >&2 && exit 2; }
            source=$1
            ;;
    esac
    shift
done
source=${source:-$(dirname "$(realpath "$0")")}

prefix=/usr/local
unit=/etc/systemd/system/edge.service
# How many files were put in their places, which a running service has not seen.
changed=0

# Puts a file where it belongs, unless the same is there.
put() {
    local from=$1 to=$2 mode=$3
    if [ -f "$to" ] && cmp -s "$from" "$to"; then return; fi
    install -D -m "$mode" "$from" "$to.new"
    # In one step: the program may be running.
    mv "$to.new" "$to"
    changed=$((changed + 1))
}

check_machine() {
    case $(uname -m) in
        armv6*) die "this machine has an ARMv6 (Raspberry Pi 1, Zero and Zero W), for which there is no edge: a Raspberry Pi 2 or later has ARMv7 or better" ;;
        x86_64 | aarch64 | armv7* | armv8*) ;;
        *) die "there is no edge for \`$(uname -m)\`: there are x86_64, aarch64 and armv7" ;;
    esac
    [ "$(id -u)" = 0 ] || die "a service is root's to install: run  sudo $0 …"
    [ -d /run/systemd/system ] ||
        die "systemd does not run here, so there is nothing to start edge: \`edge run\` by hand, or by whatever starts services here, does the same"
}

# `installed`, or `config-files` where a removal left them; nothing where dpkg knows of no such package.
package_status() {
    dpkg-query -W -f '${db:Status-Status}' edge 2> /dev/null || true
}

is_packaged() {
    [ "$(package_status)" = installed ]
}

from_package() {
    command -v dpkg > /dev/null || die "this machine has no dpkg: install from the folder (.tar.gz) instead"
    [ "$(dpkg-deb -f "$source" Package 2> /dev/null)" = edge ] || die "$source is no package of edge"
    local built own
    built=$(dpkg-deb -f "$source" Architecture) own=$(dpkg --print-architecture)
    [ "$built" = "$own" ] || die "$source is for $built, and this system is $own"
    [ ! -e "$prefix/bin/edge" ] || [ ! -e "$unit" ] ||
        die "edge was installed from a folder: run  $0 --uninstall  first; identity and swarms stay"
    # The version may be that of another build.
    if is_packaged && dpkg-deb --ctrl-tarfile "$source" | tar -xO ./md5sums | cmp -s - /var/lib/dpkg/info/edge.md5sums; then
        say "this package is installed"
        return
    fi
    # Where its owner changed the settings they stay.
    DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold -i "$source"
}

from_folder() {
    local needed file name
    for needed in edge models systemd/edge.service systemd/edge.slice systemd/edge.sysusers; do
        [ -e "$source/$needed" ] || die "$source has no $needed: it is no folder that cross/package.sh made"
    done
    "$source/edge" --version > /dev/null || die "$source/edge does not run on this machine, which is $(uname -m)"
    ! is_packaged || die "the package edge is installed: name a .deb, or remove it first (dpkg --remove edge); identity and swarms stay"
    put "$source/edge" "$prefix/bin/edge" 755
    while IFS= read -r file; do
        put "$source/models/$file" "$prefix/share/edge/models/$file" 644
    done < <(cd "$source/models" && find . -type f -printf '%P\n')
    for file in "$source"/man/*.[17]; do
        [ ! -f "$file" ] || put "$file" "$prefix/share/man/man${file##*.}/${file##*/}" 644
    done
    for name in bash:bash-completion/completions/edge zsh:zsh/site-functions/_edge fish:fish/vendor_completions.d/edge.fish; do
        file=$source/completions/edge.${name%%:*}
        [ ! -f "$file" ] || put "$file" "$prefix/share/${name#*:}" 644
    done
    # What stands there was its owner's choice.
    [ ! -f "$source/config.toml" ] || [ -e /etc/edge/config.toml ] || put "$source/config.toml" /etc/edge/config.toml 644
    put "$source/systemd/edge.sysusers" /etc/sysusers.d/edge.conf 644
    put "$source/systemd/edge.slice" /etc/systemd/system/edge.slice 644
    put "$source/systemd/edge.slice" /etc/systemd/user/edge.slice 644
    file=$(mktemp)
    sed "s#^ExecStart=/usr/bin/edge#ExecStart=$prefix/bin/edge#" "$source/systemd/edge.service" > "$file"
    put "$file" "$unit" 644
    sed "s#^ExecStart=/usr/bin/edge#ExecStart=$prefix/bin/edge#" "$source/systemd/edge-user.service" > "$file"
    put "$file" /etc/systemd/user/edge.service 644
    rm "$file"
    # Older ones would complain of it.
    if [ "$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')" -ge 254 ]; then
        put "$source/systemd/backoff.conf" "$unit.d/backoff.conf" 644
    fi
    if ((changed)); then say "put $changed files in their places, of which $prefix/bin/edge is the program"; else say "all files are in their places"; fi
    if ! id edge > /dev/null 2>&1; then
        systemd-sysusers /etc/sysusers.d/edge.conf
        say "made the user and group edge"
    fi
}

# As the node's own user: whichever way a command goes, by the socket or to the store, it leaves nothing that is root's.
as_node() {
    setpriv --reuid edge --regid edge --init-groups --reset-env \
        env EDGE_DATA_DIR=/var/lib/edge EDGE_CONTROL_SOCKET=/run/edge/edge.sock EDGE_CONTROL_SHARED=true "$program" "$@"
}

start() {
    systemctl daemon-reload
    if ! systemctl is-enabled --quiet edge.service; then systemctl enable --quiet edge.service; fi
    local does=start
    if ((changed)); then does=restart; fi
    # It returns when the node has said that it is ready.
    if ! systemctl "$does" edge.service; then
        journalctl --no-pager -n 20 -u edge.service >&2 || true
        die "the service does not start; above is what it said"
    fi
    say "the service is enabled and runs"
}

uninstall() {
    [ "$(id -u)" = 0 ] || die "a service is root's to remove: run  sudo $0 --uninstall"
    local has_systemd=''
    if [ -d /run/systemd/system ]; then has_systemd=yes; fi
    local status
    status=$(package_status)
    if [ "$status" = installed ]; then
        if [ "$has_systemd" ]; then systemctl disable --quiet --now edge.service; fi
        dpkg "$([ "$purge" ] && echo --purge || echo --remove)" edge
    elif [ "$status" = config-files ] && [ ! -e "$unit" ]; then
        [ -z "$purge" ] || dpkg --purge edge
    else
        if [ "$has_systemd" ] && [ -e "$unit" ]; then systemctl disable --quiet --now edge.service; fi
        rm -f "$unit" "$unit.d/backoff.conf" /etc/systemd/system/edge.slice /etc/systemd/user/edge.{service,slice} \
            /etc/sysusers.d/edge.conf "$prefix"/bin/edge "$prefix"/share/man/man1/edge{,-*}.1 \
            "$prefix"/share/man/man7/edge-{lender,requester,pool}.7 \
            "$prefix"/share/bash-completion/completions/edge "$prefix"/share/zsh/site-functions/_edge \
            "$prefix"/share/fish/vendor_completions.d/edge.fish
        rm -rf "$prefix/share/edge"
        [ ! -d "$unit.d" ] || rmdir --ignore-fail-on-non-empty "$unit.d"
        if [ "$has_systemd" ]; then systemctl daemon-reload; fi
        say "removed the program and its service"
    fi
    if [ "$purge" ]; then
        rm -rf /var/lib/edge /etc/edge "$unit.d"
        if id edge > /dev/null 2>&1; then userdel edge; fi
        say "removed identity, swarms, queue and settings"
    else
        say "identity, swarms, queue and settings stay in /var/lib/edge and /etc/edge (--purge removes them)"
    fi
}

if [ "$uninstall" ]; then
    uninstall
    exit
fi
[ -z "$purge" ] || { usage >&2 && exit 2; }
check_machine
# Before anything is changed.
if [ "$join" = - ]; then
    # Mail breaks long words.
    join=$(head -c 4096 | tr -d '[:space:]')
    [ "$join" ] || die "there is no ticket on stdin"
fi
if [ -d "$source" ]; then
    from_folder
    program=$prefix/bin/edge
elif [ -f "$source" ]; then
    from_package
    program=/usr/bin/edge
else
    die "there is no $source"
fi
start
case $join in
    '') ;;
    public) as_node swarm join public ;;
    *) as_node swarm join - <<< "$join" ;;
esac
as_node status
