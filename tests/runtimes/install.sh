#!/bin/bash
# Installs what the runtimes' scripts run: tests/runtimes/install.sh [podman|containerd|containerd2|docker|cnitool]...
# (all without arguments). From Debian's packages, and what Debian doesn't have by `go install`: containerd 2 takes minutes,
# once. Does nothing when all is there, exits with 1 and the line to run when it can't.
#
# SANDWIRE_TOOLS: where programs that Debian doesn't have are kept (default /var/tmp/sandwire-tools).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${SANDWIRE_TOOLS:-/var/tmp/sandwire-tools}
export PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin
mkdir -p "$tools"
exec 9>"$tools/install.lock"
flock 9

say() { printf 'runtimes: %s\n' "$*" >&2; }
. "$here/../apt.sh"
. "$here/../go.sh"
# Builds with Go 1.25; 2.3 and 2.4 want 1.26.
containerd2=2.2.9

[ $# -gt 0 ] || set -- podman containerd containerd2 docker cnitool
# A program (or file) that each package brings.
declare -A package_of=([busybox]=busybox-static [/usr/bin/python3]=python3 [jq]=jq [ip]=iproute2 [nsenter]=util-linux [curl]=curl)
for runtime in "$@"; do
  case $runtime in
    podman) package_of+=([podman]=podman [crun]=crun [conmon]=conmon) ;;
    containerd) package_of+=([containerd]=containerd [runc]=runc [/usr/lib/python3/dist-packages/grpc/__init__.py]=python3-grpcio) ;;
    containerd2) package_of+=([runc]=runc [/usr/lib/python3/dist-packages/grpc/__init__.py]=python3-grpcio) ;;
    cnitool) ;;
    docker) package_of+=([dockerd]=docker.io [runc]=runc) ;;
    *) say "there is no script for \"$runtime\""; exit 1 ;;
  esac
done
missing=()
for program in "${!package_of[@]}"; do
  command -v "$program" >/dev/null || [ -e "$program" ] || missing+=("${package_of[$program]}")
done
debian_packages "$tools/apt.log" "${missing[@]}"
flock -u 9

for runtime in "$@"; do
  case $runtime in
    containerd2)
      module=github.com/containerd/containerd/v2
      go_programs "$tools/containerd-$containerd2" $module/cmd/{containerd,containerd-shim-runc-v2,ctr}@v$containerd2
      ln -sfn "containerd-$containerd2" "$tools/containerd-2"
      ;;
    cnitool) go_programs "$tools/bin" "$cnitool" ;;
  esac
done
