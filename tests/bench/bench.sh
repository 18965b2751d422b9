#!/bin/bash
# make bench: CNI calls of Sandwire beside the reference plugins and the floor. Options go to bench.py (--runs 50, --strict).
# Everything happens in namespaces of its own; only out/bench is written.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$root/out/bench
reference=/usr/lib/cni
. "$root/tests/lab/lab.sh"

if [ "${LAB_INSIDE:-}" != yes ]; then
  need() { # PROGRAM PACKAGE...
    command -v "$1" >/dev/null || [ -e "$1" ] && return
    shift
    echo "bench: installing Debian's $*" >&2
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  }
  need gcc gcc libc6-dev
  need nft nftables
  need iptables iptables
  need $reference/bridge containernetworking-plugins
  mkdir -p "$out"
  gcc -O2 -static -Wall -Wextra -Werror -o "$out/floor" "$here/floor.c"
  gcc -O2 -static -Wall -Wextra -Werror -o "$out/meter" "$here/meter.c"
fi

lab_enter "$@"
lab_files "$LAB_RUN/files"
# tmpfs for both: the disk is not what is compared.
mount -t tmpfs tmpfs /var/lib/cni
lab_install >/dev/null
/usr/bin/python3 "$here/bench.py" --meter "$out/meter" --floor "$out/floor" --sandwire /opt/cni/bin --reference $reference --out "$out" "$@"
