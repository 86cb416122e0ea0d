#!/usr/bin/env bash
# Builds edge as one static file, proves that it is one, and lays it out to be handed on.
set -euo pipefail
cd -P "$(dirname "$0")/.."
source cross/targets.sh

usage() {
    cat << 'EOF'
Usage: cross/build.sh [--env] [--test] [x86_64|aarch64|armv7]

Builds the release program for a target, this machine's own if none is named, without any shared library. Writes to
target/dist/TARGET (below CARGO_TARGET_DIR, where that is set): the program, manifest.json and SHA256SUMS.

  --test   build the library's tests for the target too: edge-tests, beside the program
  --env    build nothing; print the settings of the build, for `eval` before a cargo command of one's own

As root it installs what is missing with apt, else it says what that is. ARM is built on x86-64 with Debian 12's compiler
and emulated by qemu, or on an ARM machine with the Rust that is there. EDGE_BUILD_UNDER may hold a command that cargo
shall run under.
EOF
}

tests='' only_env='' name=''
for word; do
    case $word in
        -h | --help) usage && exit ;;
        --test) tests=yes ;;
        --env) only_env=yes ;;
        -*) usage >&2 && exit 2 ;;
        *) name=$word ;;
    esac
done
describe "${name:-$(uname -m)}"

# Whether the Rust in PATH has the standard library of the target.
has_std() {
    compgen -G "$(rustc --print target-libdir --target "$triple" 2> /dev/null)/libstd-*.rlib" > /dev/null
}

# Rust from Debian, which has standard libraries for ARM. Its release for browsers is recent enough, in the security archive.
debian_rust() {
    local wanted rust=(rustc-web cargo-web) line list=/etc/apt/sources.list.d/edge-rust.list
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    [ "$target" = armv7 ] || rust+=("libstd-rust-web-dev:$dpkg")
    # Build scripts and macros must come from the same compiler: rustup's is not to be found.
    settings+=(PATH=/usr/bin:/bin RUSTC=/usr/bin/rustc)
    if have "${rust[@]}" && at_least "$(/usr/bin/rustc --version | cut -d' ' -f2)" "$wanted"; then return; fi

    [ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" = bookworm ] ||
        die "there is no Rust for $triple: run  rustup target add $triple  (on Debian 12 as root it is installed)"
    [ "$(id -u)" = 0 ] || die "there is no Rust for $triple: run  rustup target add $triple,  or this as root"
    if [ "$target" != armv7 ] && ! dpkg --print-foreign-architectures | grep -qx "$dpkg"; then
        dpkg --add-architecture "$dpkg"
    fi
    offered() { apt-cache policy rustc-web | sed -n 's/^ *Candidate: //p'; }
    apt-get update -qq
    if ! at_least "$(offered)" "$wanted"; then
        line="deb http://deb.debian.org/debian-security bookworm-security main"
        echo "$line" > "$list"
        apt-get update -qq
        at_least "$(offered)" "$wanted" || die "Debian's security archive has no rustc-web $wanted"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${rust[@]}" > /dev/null
}

# Where Debian's standard library is older than its compiler, as for armhf, it is built once from the compiler's sources.
std_from_source() {
    need rust-web-src
    local sysroot lib
    sysroot=$built/std/$(/usr/bin/rustc --version | cut -d' ' -f2)
    lib=$sysroot/lib/rustlib/$triple/lib
    if [ ! -d "$lib" ]; then
        local empty
        empty=$(mktemp -d)
        mkdir "$empty/src"
        touch "$empty/src/lib.rs"
        printf '[package]\nname = "empty"\nedition = "2024"\n' > "$empty/Cargo.toml"
        # -Z is for nightly compilers; this one is told to be one, for these crates alone.
        # With bitcode, or the program could not be optimised as a whole.
        (cd "$empty" && env "${settings[@]}" RUSTC_BOOTSTRAP=1 RUSTFLAGS='-C embed-bitcode=yes' CARGO_TARGET_DIR="$empty/target" ${EDGE_BUILD_UNDER:-} \
            cargo build --release -Zbuild-std=std,panic_abort,panic_unwind,proc_macro,test)
        mkdir -p "$lib.half"
        cp "$empty/target/$triple/release/deps"/*.rlib "$lib.half"
        rm -r "$lib.half"/libempty-*.rlib "$empty"
        mv "$lib.half" "$lib"
    fi
    flags+=" --sysroot $(realpath "$sysroot")"
}

# What cargo is told by its environment.
settings=(CARGO_BUILD_TARGET="$triple" CARGO_TERM_COLOR=never)
c_flags=''
# In a static libc the getrandom crate does not find the system call by its name and would want /dev/urandom.
# LLVM copies a function into its callers where that costs less than 250 of its units, in crates compiled for size 5. With
# 10 for all the program is some two megabytes smaller, and the vectors cost the same. The threshold for what is marked
# `#[inline]` stays where it is: at 40 instead of 325 they cost a third more.
flags='-C target-feature=+crt-static --cfg getrandom_backend="linux_getrandom" -C llvm-args=-inline-threshold=10'
need file gcc libc6-dev binutils "${packages[@]}"
if [ "$is_foreign" ] && ! has_std; then
    debian_rust
    [ "$target" != armv7 ] || std_from_source
fi
if [ "$target" = x86_64 ]; then
    # A static program for x86-64 is moved to a random address at its start: 97,000 places to mend, 24 bytes each, or 22 kB in
    # the packed form, which libc knows since 2.36. For ARM it is not moved.
    glibc=$(getconf GNU_LIBC_VERSION)
    if at_least "${glibc#glibc }" 2.36; then flags+=' -C link-arg=-Wl,-z,pack-relative-relocs'; fi
fi
# Functions of the same machine code are kept once, where the linker can: Rust promises no two of them different addresses.
# A compiler for another machine finds that linker only in a folder that it is told of.
icf='-C link-arg=-Wl,--icf=all' trial=$(mktemp)
if [ "$target" = aarch64 ] && [ "$linker" ] && lld=$(command -v ld.lld); then
    icf="-C link-arg=-fuse-ld=lld -C link-arg=-B$(dirname "$(realpath "$lld")") $icf"
fi
if echo 'fn main() {}' | env "${settings[@]}" bash -c '"${RUSTC:-rustc}" - "$@"' - --target "$triple" ${linker:+-C linker="$linker"} $flags $icf \
    -o "$trial" 2> /dev/null; then flags+=" $icf"; fi
rm -f "$trial"
# The same sources give the same program, wherever they and cargo's own lie, and it does not tell whose machine made it.
cargo_home=${CARGO_HOME:-${HOME:-/root}/.cargo}
for place in "$cargo_home=/cargo" "$PWD=/edge" ${CARGO_TARGET_DIR:+"$(realpath -m "$CARGO_TARGET_DIR")=/edge/target"}; do
    # Flags are told apart by spaces.
    [[ $place != *[[:space:]]* ]] || continue
    flags+=" --remap-path-prefix=$place"
    c_flags+="${c_flags:+ }-ffile-prefix-map=$place"
done
settings+=(RUSTFLAGS="$flags" "CFLAGS_${triple//-/_}=$c_flags")
if [ "$linker" ]; then
    upper=$(tr a-z- A-Z_ <<< "$triple")
    settings+=("CARGO_TARGET_${upper}_LINKER=$linker" "CARGO_TARGET_${upper}_RUNNER=$runner")
fi
if [ "$only_env" ]; then
    printf 'export %q\n' "${settings[@]}"
    exit
fi
build() { env "${settings[@]}" ${EDGE_BUILD_UNDER:-} cargo "$@"; }

build build --release --locked --bin edge
mkdir -p "$dist"
if [ "$tests" ]; then
    # Less optimised than the program, which takes half of the time; what edge is made of is not compiled again.
    settings+=(CARGO_PROFILE_RELEASE_OPT_LEVEL=1)
    said=$(build test --release --locked --lib --no-run 2>&1 | tee >(cat >&2))
    cp "$(sed -n 's/^ *Executable unittests src.lib.rs (\(.*\))$/\1/p' <<< "$said")" "$dist/edge-tests"
fi

program=$built/$triple/release/edge
cross/is-static.sh "$program"
install -m 755 "$program" "$dist/edge"
# The program finds its model beside it; it says itself what it is.
ln -sfn "$PWD/models" "$dist/models"
version=$($runner "$dist/edge" --version)
model=$($runner "$dist/edge" model list --json --data-dir "$(mktemp -d)" | grep -o '"hash":"[0-9a-f]*"' | cut -d'"' -f4)
rm "$dist/models"
commit=$(git rev-parse HEAD 2> /dev/null || echo unknown)
[ -z "$(git status --porcelain --untracked-files=no 2> /dev/null)" ] || commit+=-changed
compiler=$(env "${settings[@]}" rustc --version)
bytes=$(stat -c %s "$dist/edge")
cat > "$dist/manifest.json" << EOF
{
  "version": "${version#edge }",
  "commit": "$commit",
  "target": "$triple",
  "compiler": "$compiler",
  "model": "all-minilm-l6-v2",
  "model_hash": "$model",
  "bytes": $bytes
}
EOF
(cd "$dist" && sha256sum edge manifest.json > SHA256SUMS)
echo "$dist/edge: $version for $triple, $bytes bytes"
