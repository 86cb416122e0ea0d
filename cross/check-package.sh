#!/usr/bin/env bash
# Installs a package in a Debian tree of its own, upgrades, removes and purges it, and looks at what each leaves.
set -euo pipefail

usage() {
    cat << 'END'
Usage: cross/check-package.sh FILE.deb [TREE]

TREE is a Debian that debootstrap made, with systemd in it; it is copied and stays as it is. Without one, debootstrap
fetches it. Needs root. The program of a package for another machine is run under qemu-user-static; the tree stays one of
this machine, whose dpkg is told to take it all the same.
END
}

source "$(dirname "$0")/targets.sh"

(($# == 1 || $# == 2)) || { usage >&2 && exit 2; }
[ "$(id -u)" = 0 ] || die "a tree of its own is root's to make: run it with sudo"
package=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
describe "$(dpkg-deb -f "$package" Architecture)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
if [ "${2:-}" ]; then
    cp -a --reflink=auto "$2" "$root"
else
    command -v debootstrap > /dev/null || die "there is no debootstrap: apt-get install debootstrap"
    debootstrap --variant=minbase --include=systemd bookworm "$root" > "$work/debootstrap.log" || {
        tail "$work/debootstrap.log" >&2
        die "debootstrap made no tree"
    }
fi

program=(edge) forced=()
if [ "$is_foreign" ]; then
    need qemu-user-static
    cp "$(command -v "$runner")" "$root/usr/local/bin/"
    # It takes a path, where a shell looks for the name.
    program=("$runner" /usr/bin/edge) forced=(--force-architecture --force-depends)
fi

step() { printf '== %s\n' "$1"; }
within() { chroot "$root" "$@"; }
as_node() { within setpriv --reuid edge --regid edge --clear-groups env EDGE_DATA_DIR=/var/lib/edge "${program[@]}" "$@"; }
dpkg_i() { within dpkg "${forced[@]}" -i "$@"; }
is() { [ "$1" = "$2" ] || die "$3: \`$1\`, not \`$2\`"; }
# All files, but for what dpkg and the C library write of themselves.
files() {
    (cd "$root" && find . -path ./var/lib/dpkg -prune -o -path ./var/log -prune -o -path ./var/cache -prune -o -path ./tmp -prune -o -path ./run -prune \
        -o ! -name '*-' ! -name .pwd.lock -print | sort)
}

# The package again, as a later version with other defaults.
later() {
    dpkg-deb -R "$package" "$work/later"
    sed -i 's/^Version: .*/&+later/' "$work/later/DEBIAN/control"
    echo '# of the later version' >> "$work/later/etc/edge/config.toml"
    dpkg-deb --root-owner-group -Zgzip -b "$work/later" "$work/later.deb" > /dev/null
    cp "$work/later.deb" "$root/tmp/later.deb"
}

step "install"
cp "$package" "$root/tmp/edge.deb"
before=$(files)
users=$(cat "$root/etc/passwd" "$root/etc/group")
dpkg_i /tmp/edge.deb
is "$(within stat -c '%U:%G %a' /var/lib/edge)" "edge:edge 700" "/var/lib/edge"
is "$(within stat -c '%U:%G %a' /usr/bin/edge /etc/edge/config.toml | tr '\n' ' ')" "root:root 755 root:root 644 " "owners"
[ ! -e "$root/etc/systemd/system/multi-user.target.wants/edge.service" ] || die "the service is enabled"
for file in usr/lib/systemd/{system,user}/edge.{service,slice} usr/share/man/man1/edge-run.1.gz usr/share/man/man7/edge-lender.7.gz usr/share/bash-completion/completions/edge \
    usr/share/zsh/vendor-completions/_edge usr/share/doc/edge/copyright; do
    [ -f "$root/$file" ] || die "there is no /$file"
done
within bash -n /usr/share/bash-completion/completions/edge
within "${program[@]}" config check
within systemd-analyze verify --man=no edge.service 2>&1 | { ! grep edge; } || die "systemd finds fault with the unit"

step "use"
peer=$(as_node id)
as_node swarm create home
printf 'The keeper lights the lamp at dusk.\n' > "$root/tmp/a.txt"
as_node embed /tmp/a.txt -o - > "$work/first.jsonl"
is "$(wc -l < "$work/first.jsonl")" 1 "chunks"
store=$(within sha256sum /var/lib/edge/identities/default/data.mdb)
sed -i 's/^#keep_days = .*/keep_days = 7/' "$root/etc/edge/config.toml"
settings=$(cat "$root/etc/edge/config.toml")

step "upgrade"
later
# Without a word as to the settings dpkg would ask; whoever answers keeps theirs.
dpkg_i --force-confold /tmp/later.deb
is "$(within dpkg-query -W -f '${Version}' edge)" "$(dpkg-deb -f "$work/later.deb" Version)" "version"
is "$(within sha256sum /var/lib/edge/identities/default/data.mdb)" "$store" "the store, byte for byte"
is "$(as_node id)" "$peer" "identity"
is "$(cat "$root/etc/edge/config.toml")" "$settings" "settings"
as_node swarm list | grep -q home || die "the swarm is gone"
as_node embed /tmp/a.txt -o /tmp/again.jsonl --json > "$work/again"
grep -q '"chunks_computed": *0' "$work/again" || die "what was stored is computed again: $(cat "$work/again")"

step "remove, and install again"
within dpkg --remove edge
[ ! -e "$root/usr/bin/edge" ] || die "the program is still there"
[ -s "$root/var/lib/edge/identities/default/identity.pem" ] || die "the identity is gone"
is "$(cat "$root/etc/edge/config.toml")" "$settings" "settings"
dpkg_i /tmp/later.deb
is "$(as_node id)" "$peer" "identity"

step "purge"
within dpkg --purge edge
diff <(echo "$before") <(files) || die "that is not as before"
diff <(echo "$users") <(cat "$root/etc/passwd" "$root/etc/group") || die "users and groups are not as before"

# The rest is of the machine that it runs on.
if [ "$is_foreign" ]; then step "done" && exit; fi
step "install.sh where there is no systemd, and on a machine that has no build"
cp "$here/install.sh" "$root/tmp/"
said=$(within /tmp/install.sh /tmp/edge.deb 2>&1) && die "it went on without systemd"
[[ $said == *"systemd does not run here"* ]] || die "without systemd it says: $said"
mkdir "$root/tmp/armv6"
printf '#!/bin/sh\necho armv6l\n' > "$root/tmp/armv6/uname"
chmod 755 "$root/tmp/armv6/uname"
said=$(within env PATH=/tmp/armv6:/usr/bin:/bin /tmp/install.sh /tmp/edge.deb 2>&1) && die "it went on with ARMv6"
[[ $said == *ARMv6*"Raspberry Pi 2 or later"* ]] || die "of ARMv6 it says: $said"
said=$(within setpriv --reuid 65534 /tmp/install.sh /tmp/edge.deb 2>&1) && die "it went on without root"
[[ $said == *"run  sudo"* ]] || die "without root it says: $said"

step "done"
