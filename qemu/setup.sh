#!/bin/sh
# Installs what Pinfold is built and run with: Debian packages, once, quietly.
# Not root, or no apt: says in one line what to install and for what.
set -eu

cache=${PINFOLD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pinfold}
stamp=$cache/setup-$(sha256sum "$0" | cut -c1-16)
busybox=$cache/busybox-arm64
[ -e "$stamp" ] && [ -x "$busybox" ] && [ -x /usr/bin/qemu-system-aarch64 ] && exit 0
mkdir -p "$cache"

emulator="qemu-system-arm"
kernel="linux-source-6.12 gcc libc6-dev make patch flex bison bc perl xz-utils kmod libssl-dev libelf-dev"
cross="gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
rust="rustc-web cargo-web rust-web-src rust-web-clippy rustfmt-web libstd-rust-web-dev:arm64"
tools="gdb-multiarch shellcheck sparse device-tree-compiler"
# Coverage is read by the LLVM that rustc has; libFuzzer is C++.
measure="llvm-22 g++"

say() { echo "pinfold: $*"; }

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing() {
    for package; do installed "$package" || printf ' %s' "$package"; done
}

# QEMU below 9 lacks what Pinfold relies on; Debian 12 has 10 in its backports.
qemu_is_new() {
    installed qemu-system-arm &&
        dpkg --compare-versions "$(dpkg-query -W -f '${Version}' qemu-system-arm)" ge 1:9
}

# The backports suite, by whatever way this machine reaches Debian already:
# its own source for the release, with the suite replaced.
add_backports() {
    # shellcheck source=/dev/null
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    backports=$release-backports
    apt-cache policy | grep -q "n=$backports" && return
    for list in /etc/apt/sources.list.d/*.sources; do
        [ -e "$list" ] || continue
        awk -v release="$release" -v to="$backports" 'BEGIN { RS = ""; FS = "\n" }
            $0 ~ "(^|\n)Suites:[^\n]* " release "( |\n|$)" {
                for (i = 1; i <= NF; i++) {
                    if ($i ~ /^#/) continue
                    if ($i ~ /^Suites:/) $i = "Suites: " to
                    if ($i ~ /^Components:/) $i = "Components: main"
                    print $i
                }
                exit
            }' "$list"
    done >/etc/apt/sources.list.d/pinfold-backports.sources
    [ -s /etc/apt/sources.list.d/pinfold-backports.sources ] && return
    rm /etc/apt/sources.list.d/pinfold-backports.sources
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
        sed -n "s/^\(deb .*\) $release main.*/\1 $backports main/p" | head -n 1 \
        >/etc/apt/sources.list.d/pinfold-backports.list
}

# Another architecture's busybox cannot be installed beside one's own.
fetch_busybox() {
    here=$(mktemp -d)
    (cd "$here" && apt-get -qq -o APT::Sandbox::User=root download busybox-static:arm64 &&
        dpkg-deb -x busybox-static_*.deb .)
    mv "$here/bin/busybox" "$busybox"
    rm -r "$here"
}

# shellcheck disable=SC2086
need=$(missing $kernel $cross $rust $tools $measure)
qemu_is_new && late= || late=" $emulator (version 9 or newer)"
if [ -z "$need$late" ] && [ -x "$busybox" ]; then
    touch "$stamp"
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    [ -x "$busybox" ] || late="$late, an arm64 static busybox as $busybox (programs of the virtual machines)"
    say "install as root:$need$late (kernels: linux-source, gcc and what its build needs; EL2 and host programs: rust*, aarch64 cross gcc; to run: qemu; to look: gdb, shellcheck, sparse, dtc; to measure: llvm, g++)"
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
[ -x "$busybox" ] || late="$late busybox-static:arm64 (unpacked into the cache)"
say "installing packages:$need$late"
log=$cache/setup.log
ended() {
    [ -e "$stamp" ] && say "packages are there" >&3 && return
    grep -E '^(E|W|dpkg):? ' "$log" | head -n 5 >&3
    say "setting up failed; all of it: $log" >&3
}
trap ended EXIT
exec 3>&1 >"$log" 2>&1
dpkg --add-architecture arm64
apt-get -qq update
# shellcheck disable=SC2086
[ -z "$need" ] || apt-get -qq -y --no-install-recommends install $need
if ! qemu_is_new; then
    add_backports
    apt-get -qq update
    apt-get -qq -y --no-install-recommends -t "$backports" install $emulator
fi
[ -x "$busybox" ] || fetch_busybox
touch "$stamp"
