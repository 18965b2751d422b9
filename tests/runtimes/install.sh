#!/bin/bash
# Installs what the runtimes' scripts run: tests/runtimes/install.sh [podman|containerd|docker]...   (all without arguments)
# From Debian's packages; does nothing when all is there, exits with 1 and the line to run when it can't.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${SANDWIRE_TOOLS:-/var/tmp/sandwire-tools}
export PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$tools"
exec 9>"$tools/install.lock"
flock 9

say() { printf 'runtimes: %s\n' "$*" >&2; }
. "$here/../apt.sh"

[ $# -gt 0 ] || set -- podman containerd docker
# A program (or file) that each package brings.
declare -A package_of=([busybox]=busybox-static [jq]=jq [ip]=iproute2 [nsenter]=util-linux [curl]=curl)
for runtime in "$@"; do
  case $runtime in
    podman) package_of+=([podman]=podman [crun]=crun [conmon]=conmon) ;;
    containerd) package_of+=([containerd]=containerd [runc]=runc [/usr/lib/python3/dist-packages/grpc/__init__.py]=python3-grpcio) ;;
    docker) package_of+=([dockerd]=docker.io [runc]=runc) ;;
    *) say "there is no script for \"$runtime\""; exit 1 ;;
  esac
done
missing=()
for program in "${!package_of[@]}"; do
  command -v "$program" >/dev/null || [ -e "$program" ] || missing+=("${package_of[$program]}")
done
debian_packages "$tools/apt.log" "${missing[@]}"
