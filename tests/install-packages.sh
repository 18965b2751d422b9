#!/bin/bash
# Installs what the tests run: Debian's packages, Rust's target for components, Go's cnitool, and the reference plugins' release
# 1.9.1, which makes objects that Debian's 1.1.1 doesn't. Does nothing when all of it is there; exits with 1 and the line to
# run when it can't.
#
# SANDWIRE_TOOLS: where programs that Debian doesn't have are kept (default /var/tmp/sandwire-tools).
set -euo pipefail
tools=${SANDWIRE_TOOLS:-/var/tmp/sandwire-tools}
export PATH=$tools/bin:$PATH:/usr/local/go/bin:/usr/sbin:/sbin
mkdir -p "$tools/bin"

# One at a time; the second finds it done.
exec 9>"$tools/install.lock"
flock 9

say() { printf 'packages: %s\n' "$*" >&2; }
. "$(dirname "${BASH_SOURCE[0]}")/apt.sh"
. "$(dirname "${BASH_SOURCE[0]}")/go.sh"

# ---- Debian's, by a program (or file) that each brings; of dnsmasq, the DHCP server, what has no service of its own
declare -A package_of=(
  [/usr/lib/cni/bridge]=containernetworking-plugins [ip]=iproute2 [bridge]=iproute2 [tc]=iproute2 [nft]=nftables
  [iptables]=iptables [strace]=strace [jq]=jq [tcpdump]=tcpdump [ethtool]=ethtool [conntrack]=conntrack [ping]=iputils-ping
  [curl]=curl [brctl]=bridge-utils [gobgpd]=gobgpd [setpriv]=util-linux [nsenter]=util-linux
  [git]=git [sysctl]=procps [dnsmasq]=dnsmasq-base [/usr/lib/x86_64-linux-gnu/libc.a]=libc6-dev [/usr/bin/python3]=python3
)
missing=()
for program in "${!package_of[@]}"; do
  command -v "$program" >/dev/null || [ -e "$program" ] || missing+=("${package_of[$program]}")
done
/usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
command -v go >/dev/null || missing+=(golang)
debian_packages "$tools/apt.log" "${missing[@]}"

# ---- Rust's: what the build needs, and what only the tests do
"$(dirname "${BASH_SOURCE[0]}")/../host/toolchain.sh"
if command -v rustup >/dev/null; then
  rustup target list --installed | grep -qx wasm32-wasip2 || rustup target add wasm32-wasip2
  for component in rustfmt clippy; do
    cargo ${component/rustfmt/fmt} --version >/dev/null 2>&1 || rustup component add $component
  done
fi

# ---- cnitool: Debian's knows nothing of spec 1.1.0
go_programs "$tools/bin" "$cnitool"

# ---- the reference plugins of a release that has nftables backends
release=1.9.1
plugins=(main/bridge main/ptp ipam/host-local meta/portmap meta/firewall meta/bandwidth meta/tuning)
plugins=("${plugins[@]/#/github.com/containernetworking/plugins/plugins/}")
go_programs "$tools/cni-$release" "${plugins[@]/%/@v$release}"
