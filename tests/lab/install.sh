#!/bin/bash
# Installs what the lab runs: Debian's gobgpd and tools, and networking-bagpipe (bagpipe-bgp) at the exact versions of
# requirements.lock into a virtual environment of its own. Does nothing when all of it is there already. With the argument
# "tools" it installs only what the nodes of the lab need without BGP.
#
# SANDWIRE_LAB: where to keep it (default /var/tmp/sandwire-lab, 150 MB). Delete that folder to be rid of it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${SANDWIRE_LAB:-/var/tmp/sandwire-lab}
venv=$cache/venv
mkdir -p "$cache"

# One installation at a time; the second one finds it done.
exec 9>"$cache/install.lock"
flock 9

say() { printf '%s\n' "lab: $*" >&2; }
. "$(dirname "${BASH_SOURCE[0]}")/../apt.sh"

# ---- Debian's packages, by the program that each brings
declare -A package_of=(
  [ip]=iproute2 [bridge]=iproute2 [ping]=iputils-ping [curl]=curl [jq]=jq [nft]=nftables [unshare]=util-linux
  [nsenter]=util-linux [setpriv]=util-linux [sysctl]=procps [tcpdump]=tcpdump
)
[ "${1:-}" = tools ] || package_of+=([gobgpd]=gobgpd [gobgp]=gobgpd [brctl]=bridge-utils)
export PATH=$PATH:/usr/sbin:/sbin
missing=()
for program in "${!package_of[@]}"; do
  command -v "$program" >/dev/null || missing+=("${package_of[$program]}")
done
[ "${1:-}" = tools ] || /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
debian_packages "$cache/apt.log" "${missing[@]}"
[ "${1:-}" != tools ] || exit 0

# ---- bagpipe-bgp
want=$(cat "$here/requirements.lock" "$here/mend-venv.sh" | sha256sum | cut -c1-16)
if [ "$(cat "$venv/complete" 2>/dev/null)" = "$want" ]; then
  exit 0
fi
total=$(grep -c '^[A-Za-z]' "$here/requirements.lock")
say "installing bagpipe-bgp and what it needs ($total pinned Python packages) into $venv; once, under a minute"
rm -rf "$venv"
/usr/bin/python3 -m venv "$venv"
progress=cat
[ -t 2 ] && progress="awk -v total=$total '{ n++; printf \"\\r\\033[Klab: %d of %d  %s\", n, total, \$2; fflush() } END { print \"\" }'"
# The lock names every package at its version, so nothing is resolved: --no-deps keeps it so.
"$venv/bin/pip" install --disable-pip-version-check --no-deps --no-compile -r "$here/requirements.lock" \
  >"$cache/pip.log" 2>&1 &
pip=$!
trap 'kill "$pip" 2>/dev/null; exit 130' INT TERM HUP
{ tail --pid=$pip -n +1 -F "$cache/pip.log" 2>/dev/null | grep --line-buffered '^Collecting ' | sed -u 's/==/ /' |
  { if [ -t 2 ]; then eval "$progress"; else cat >/dev/null; fi; } >&2; } || true
if ! wait $pip; then
  tail -15 "$cache/pip.log" >&2
  say "pip could not install the pinned packages (all of it: $cache/pip.log)"
  exit 1
fi
"$here/mend-venv.sh" "$venv"
echo "$want" >"$venv/complete"
say "installed"
