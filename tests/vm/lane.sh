#!/bin/bash
# What only a full kernel has, on Debian's kernel in a virtual machine: the cases with a file `needs`, with the steps that the
# machine's own kernel may have to leave out, ours and Debian's plugins; and the tests of host/kernel. Wants `make build`.
# A feature that is lacking there is an error.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."

if [ "${1:-}" = inside ]; then
  shift
  export SANDWIRE_KERNEL=full
  status=0
  for binary; do
    printf '\n-- %s at %d s\n' "${binary##*/}" $SECONDS
    case $binary in
      */e2e-*) "$binary" cases:: vlan:: hardware:: dhcp::given::on_ipvlans --skip every_ || status=1 ;;
      *) "$binary" || status=1 ;;
    esac
  done
  exit $status
fi

# Built here: under emulation that would take hours.
binaries=$(cargo test --locked --profile tool --no-run --message-format=json -p sandwire-kernel --test links --test ports -p sandwire-harness --test e2e |
  jq -r 'select(.reason == "compiler-artifact" and .profile.test and .executable) | .executable')
[ "$(wc -l <<<"$binaries")" = 3 ] || { printf 'vm: cargo built other tests than it was asked for:\n%s\n' "$binaries" >&2; exit 1; }
mapfile -t binaries <<<"$binaries"
exec "$here/run" -t 900 env SANDWIRE_CASES="${SANDWIRE_CASES:-}" RUST_BACKTRACE=0 "$here/lane.sh" inside "${binaries[@]}"
