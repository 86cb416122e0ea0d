#!/usr/bin/env bash
# Holds a program to what is said of it: one file that needs no other, without symbols, for pages of any size.
set -euo pipefail

if [ $# != 1 ] || [ "$1" = --help ]; then
    echo "Usage: cross/is-static.sh PROGRAM"
    exit $(($# == 1 ? 0 : 2))
fi
die() {
    echo "is-static.sh: $1: $2" >&2
    exit 1
}

what=$(file -b "$1")
echo "$what"
grep -qE 'static-pie linked|statically linked' <<< "$what" || die "$1" "not static, says file"
grep -q ', stripped' <<< "$what" || die "$1" "has symbols, says file: is \`strip\` of the release profile overridden?"
needs=$(ldd "$1" 2>&1 || true)
grep -qE 'statically linked|not a dynamic executable' <<< "$needs" || die "$1" "needs libraries: $needs"
! readelf -lW "$1" | grep -q INTERP || die "$1" "asks for a loader"
# Kernels of the Raspberry Pi 5 have pages of 16 KiB, others for ARM of 64: what is mapped must lie apart by as much.
case $what in
    *aarch64*) least=65536 ;;
    *) least=4096 ;;
esac
while read -r align; do
    ((align >= least)) || die "$1" "mapped in steps of $align bytes, which a kernel with pages of $least refuses"
done < <(readelf -lW "$1" | awk '$1 == "LOAD" { print $NF }')
size -A -d "$1" | awk '$2 + 0 > 1000000 { printf "  %-18s %9d bytes\n", $1, $2 }'
