#!/usr/bin/env bash
# Makes of a program that is built what is handed out: a folder to install from, the same as an archive, and a Debian package.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat << 'END'
Usage: cross/package.sh PROGRAM

PROGRAM is edge for x86-64, aarch64 or armv7, as cross/build.sh leaves it. Writes to target/package: edge-VERSION-TARGET/ with
program, models, units, settings, manual pages, completions and install.sh; that folder as .tar.gz; and a .deb. The pages
and completions are the program's own words: one for another machine is run under qemu-user-static. The .deb needs cargo-deb
(cargo install --locked cargo-deb).
END
}

die() {
    echo "package.sh: $*" >&2
    exit 1
}

(($# == 1)) || { usage >&2 && exit 2; }
program=$1
[ -f "$program" ] || die "there is no $program: cross/build.sh makes one"
# What it was built for stands in the file: e_machine of its ELF header.
case $(od -An -tx1 -j18 -N2 "$program" | tr -d ' ') in
    3e00) target=x86_64 triple=x86_64-unknown-linux-gnu qemu=qemu-x86_64-static ;;
    b700) target=aarch64 triple=aarch64-unknown-linux-gnu qemu=qemu-aarch64-static ;;
    2800) target=armv7 triple=armv7-unknown-linux-gnueabihf qemu=qemu-arm-static ;;
    *) die "$program is no program for x86-64, aarch64 or ARMv7" ;;
esac
run=("$program")
if ! version=$("${run[@]}" --version 2> /dev/null); then
    command -v "$qemu" > /dev/null || die "$program does not run here: install qemu-user-static, which has $qemu"
    run=("$qemu" "$program")
    version=$("${run[@]}" --version)
fi
version=${version#edge }

out=target/package
folder=$out/edge-$version-$target
rm -rf "$folder"
mkdir -p "$folder"/{completions,systemd}
install -m 755 "$program" "$folder/edge"
install -m 755 cross/install.sh "$folder/"
install -m 644 systemd/* "$folder/systemd/"
cp -r --no-preserve=mode models/all-minilm-l6-v2 -t "$(mkdir -p "$folder/models" && echo "$folder/models")"
"${run[@]}" man "$folder/man"
for shell in bash zsh fish; do "${run[@]}" completions "$shell" > "$folder/completions/edge.$shell"; done
"${run[@]}" config example > "$folder/config.toml"

# The same files give the same archive.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || echo 0)}
export SOURCE_DATE_EPOCH
tar -C "$out" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -c "${folder##*/}" |
    gzip -n > "$folder.tar.gz"

command -v cargo-deb > /dev/null || die "no .deb without cargo-deb: cargo install --locked cargo-deb; $folder.tar.gz is there"
# Cargo.toml names the files at a place that is the same for every target.
rm -rf "$out/deb"
cp -r "$folder" "$out/deb"
# dpkg's own umask: a package with files that only their builder may read is none.
chmod -R u=rwX,go=rX "$out/deb"
cargo deb --no-build --no-strip --target "$triple" --output "$out/"
rm -rf "$out/deb"
ls -l "$folder.tar.gz" "$out"/*"$version"*.deb
