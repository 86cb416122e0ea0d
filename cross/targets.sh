# What the targets differ in. Sourced by build.sh, check.sh, check-all.sh and check-package.sh; does nothing by itself.

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# The target that suits a machine, by what `uname -m` says there. ARMv6 is refused by name: a program for ARMv7 ends there
# with nothing but "Illegal instruction".
target_for() {
    case $1 in
        x86_64 | amd64) echo x86_64 ;;
        aarch64 | arm64) echo aarch64 ;;
        armv7 | armv7l | armv8l | armhf) echo armv7 ;;
        armv6 | armv6l) die "ARMv6 (Raspberry Pi 1, Zero and Zero W) has no build of edge: a Raspberry Pi 2 or later has ARMv7 or better" ;;
        *) die "no build of edge for \`$1\`: there are x86_64, aarch64 and armv7" ;;
    esac
}

# The user's own wish goes before what a target needs.
asked_cpu=${QEMU_CPU:-}

# Sets `triple`, and for what is foreign here `linker`, `runner` and `packages`.
describe() {
    target=$(target_for "$1")
    linker='' runner='' packages=()
    case $target in
        x86_64) triple=x86_64-unknown-linux-gnu gnu=x86_64-linux-gnu dpkg=amd64 ;;
        aarch64) triple=aarch64-unknown-linux-gnu gnu=aarch64-linux-gnu dpkg=arm64 ;;
        armv7) triple=armv7-unknown-linux-gnueabihf gnu=arm-linux-gnueabihf dpkg=armhf ;;
    esac
    is_foreign=$([ "$target" = "$(target_for "$(uname -m)")" ] || echo yes)
    if [ "$is_foreign" ]; then
        linker=$gnu-gcc
        case $target in
            x86_64) die "edge for x86_64 is built on x86-64" ;;
            # The oldest of each that a Raspberry Pi has: by default qemu has instructions that none of them knows.
            aarch64) runner=qemu-aarch64-static cpu=cortex-a53 packages=(lld) ;;
            armv7) runner=qemu-arm-static cpu=cortex-a7 ;;
        esac
        export QEMU_CPU=${asked_cpu:-$cpu}
        packages+=("gcc-$gnu" "g++-$gnu" "libc6-dev-$dpkg-cross" qemu-user-static)
    fi
    # Everything that is built, and what is handed out.
    built=${CARGO_TARGET_DIR:-target}
    dist=$built/dist/$target
}

# Whether all of these Debian packages are installed.
have() {
    local package
    for package; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || return
    done
}

# Installs what is missing of these Debian packages; whoever is not root is told how. Where there is no dpkg, whatever comes
# next says itself what it misses.
need() {
    command -v dpkg-query > /dev/null || return 0
    local missing=() package
    for package; do have "$package" || missing+=("$package"); done
    ((${#missing[@]})) || return 0
    if [ "$(id -u)" != 0 ]; then
        die "missing: run  sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}"
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
}

# Whether version $1 is at least $2.
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }
