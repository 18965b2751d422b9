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
  "$root/tests/install-packages.sh"
  for built in target/tool/sandwirectl target/x86_64-unknown-linux-musl/release/sandwire out/plugins/bridge.wasm; do
    [ -e "$root/$built" ] || { echo "bench: $built is not there: run  make build  first" >&2; exit 1; }
  done
  mkdir -p "$out"
  gcc -O2 -static -Wall -Wextra -Werror -o "$out/floor" "$here/floor.c"
  gcc -O2 -static -Wall -Wextra -Werror -o "$out/meter" "$here/meter.c"
fi

lab_enter "$@"
lab_files "$LAB_RUN/files"
# Programs from the same file system for all three, as on a node: mapping a page of a program costs more from the lab's overlay
# over tmpfs than from the disk's (pages of one file come one by one there). What they write is in tmpfs for all: the disk
# is not what is compared.
for folder in opt/cni/bin etc/sandwire usr/lib/sandwire var/lib/sandwire; do
  rm -rf "$out/node/$folder"
  mkdir -p "$out/node/$folder" "/$folder"
  mount --bind "$out/node/$folder" "/$folder"
done
mkdir -m 700 /var/lib/sandwire/leases
mount -t tmpfs -o mode=700 tmpfs /var/lib/sandwire/leases
mount -t tmpfs tmpfs /var/lib/cni
lab_install >/dev/null
/usr/bin/python3 "$here/bench.py" --meter "$out/meter" --floor "$out/floor" --sandwire /opt/cni/bin --reference $reference --out "$out" "$@"
