#!/usr/bin/env bash
# What takes too long for every change, or needs to be root: static programs in foreign roots, pages of other sizes, all
# unit tests under emulation.
set -euo pipefail
cd "$(dirname "$0")/.."
source cross/targets.sh

usage() {
    cat << 'EOF'
Usage: cross/check-all.sh [x86_64|aarch64|armv7]...

For each target, all that cross/build.sh has built if none is named:
- it is one file, without symbols; what it says of itself is right;
- cross/check.sh with no files of a system around it, where only its own libc can resolve `localhost`;
- cross/check.sh in Debian 13, whose libc is another than the program's and whose names libnss-mdns looks up too;
- aarch64: cross/check.sh with pages of 16 and 64 KiB, as the kernels of the Raspberry Pi 5 and of servers have them;
- where `build.sh --test` was run, all unit tests of the library, but one that emulation makes too long;
- it is packed, and lintian has nothing to say of the package, which is installed, upgraded, removed and purged; this
  machine's service is booted and watched, from the folder and from the package.

Needs root, for other roots, and a network, for Debian 12 and 13. What is said is kept in target/dist/check-all.txt. Takes
half an hour and more.
EOF
}

# Newer ones want a newer compiler.
CARGO_DEB=3.8.0

case ${1:-} in
    -h | --help) usage && exit ;;
    -*) usage >&2 && exit 2 ;;
esac
[ "$(id -u)" = 0 ] || die "needs root: programs run with another folder as their root"
describe "$(uname -m)"
targets=("$@")
if ((${#targets[@]} == 0)); then
    for folder in "$built"/dist/*/; do targets+=("$(basename "$folder")"); done
fi
exec > >(tee "$built/dist/check-all.txt") 2>&1
need debootstrap lintian systemd-container
command -v cargo-deb > /dev/null || cargo install --quiet --locked cargo-deb --version "$CARGO_DEB"

# Debian 12, which two checks copy.
bookworm() {
    local tree=$work/bookworm
    [ -d "$tree" ] || debootstrap --variant=minbase --include=systemd,dbus,libpam-systemd,procps bookworm "$tree" > "$work/log" ||
        { tail -n 20 "$work/log" && die "debootstrap fails"; }
}

# It had not ended after six minutes of CPU time. All others run under qemu.
NOT_EMULATED=(inference::bert::tests::is_equal_to_tract)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in "${targets[@]}"; do
    describe "$name"
    printf '\n==== %s, %s\n' "$target" "$(date -u +%FT%TZ)"
    cross/is-static.sh "$dist/edge"
    (cd "$dist" && sha256sum -c SHA256SUMS)
    cat "$dist/manifest.json"

    printf '\n==== %s with nothing around it\n' "$target"
    mkdir "$work/$target-alone"
    cross/check.sh --root "$work/$target-alone" --host localhost --host nowhere.invalid "$target"

    printf '\n==== %s in Debian 13 with libnss-mdns\n' "$target"
    # Of the target's own architecture, else libraries could not even be tried. What emulation installs it only unpacks.
    root=$work/$target-trixie
    debootstrap ${is_foreign:+--foreign} --arch="$dpkg" --variant=minbase --include=libnss-mdns trixie "$root" > "$work/log" ||
        { tail -n 20 "$work/log" && die "debootstrap fails"; }
    if [ "$is_foreign" ]; then
        for package in "$root"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
    fi
    echo "hosts: files mdns4_minimal [NOTFOUND=return] dns" > "$root/etc/nsswitch.conf"
    echo "127.0.0.1 localhost lamp" > "$root/etc/hosts"
    cross/check.sh --root "$root" --host lamp --host lamp.local --host nowhere.invalid "$target"

    if [ "$target" = aarch64 ] && [ "$runner" ]; then
        for size in 16384 65536; do
            printf '\n==== %s with pages of %s bytes\n' "$target" "$size"
            QEMU_PAGESIZE=$size cross/check.sh "$target"
        done
    fi
    if [ -x "$dist/edge-tests" ]; then
        printf '\n==== all unit tests for %s\n' "$target"
        $runner "$dist/edge-tests" --test-threads 2 "${NOT_EMULATED[@]/#/--skip=}"
    fi

    printf '\n==== the package of %s\n' "$target"
    cross/package.sh "$dist/edge"
    package=$(ls -t target/package/*_"$dpkg".deb | head -n 1)
    lintian --fail-on error,warning "$package"
    bookworm
    cross/check-package.sh "$package" "$work/bookworm"
    if [ -z "$is_foreign" ]; then
        cross/check-service.sh "$(ls -dt target/package/*-"$target" | head -n 1)" "$work/bookworm"
        cross/check-service.sh "$package" "$work/bookworm"
    fi
done
printf '\n==== all is well (%s s)\n' "$SECONDS"
