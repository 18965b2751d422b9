#!/bin/bash
# make test: everything, on real namespaces with the real daemons. Goes on past a failing part, prints what failed, and ends
# with `N passed, N failed`. As root, because it makes namespaces; the machine's own network and files stay as they are,
# which is the last thing it proves.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools=${SANDWIRE_TOOLS:-/var/tmp/sandwire-tools}
export PATH=$tools/bin:$PATH:/usr/local/go/bin:/usr/sbin:/sbin
# A failing test says what differs; where in the harness that was noticed helps nobody.
export RUST_BACKTRACE=0
logs=out/test
mkdir -p $logs
[ "$(id -u)" = 0 ] || { echo "make test makes network namespaces, which needs root" >&2; exit 1; }

passed=0
failed=0
report=()

# part NAME COMMAND...: runs it, counts its tests (or itself as one), remembers how long it took.
part() {
  local name=$1 log began=$SECONDS status=0 yes no
  shift
  log=$logs/${name// /-}.log
  printf '\n==== %s\n' "$name"
  "$@" 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  yes=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$log")
  no=$(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$log")
  if [ $((yes + no)) = 0 ]; then
    [ $status = 0 ] && yes=1 || no=1
  elif [ $status != 0 ] && [ "$no" = 0 ]; then
    no=1
  fi
  passed=$((passed + yes))
  failed=$((failed + no))
  report+=("$(printf '%-28s %5d passed %4d failed %5d s%s' "$name" "$yes" "$no" $((SECONDS - began)) "$([ "$no" = 0 ] || echo "   $log")")")
  return $status
}

finish() {
  printf '\n'
  printf '%s\n' "${report[@]}"
  printf '\n%d passed, %d failed\n' $passed $failed
  [ $failed = 0 ]
  exit
}

# What the machine has that a test might leave.
machine() {
  ip netns list | sort
  ip -o link | sed -E 's/^[0-9]+: ([^:@]+).*/link \1/' | sort
  ip rule | sort
  # Without counters and handles.
  nft -j list ruleset 2>/dev/null | jq -cS 'del(.. | .handle?, .packets?, .bytes?)'
  sysctl -n net.ipv4.ip_forward
  find /run /var/lib/cni /opt/cni /etc/cni /etc/sandwire /var/lib/sandwire /usr/lib/sandwire -xdev \
    \( -path /run/systemd -o -path /run/udev -o -path /run/user -o -path /run/log -o -path /run/lock \) -prune -o -print 2>/dev/null | sort
  ls -d /mnt/* /mnt-* 2>/dev/null | sort
  return 0
}

unchanged() { diff "$logs/machine.before" <(machine) && echo "the machine is as it was"; }

tested() { cargo test --locked --profile tool --no-fail-fast "$@"; }
# These run through the installed binary, or take minutes: parts of their own.
apart=(sandwire-harness sandwire-crash sandwire-model sandwire-differential)

part "packages" tests/install-packages.sh || finish
tests/lab/install.sh || { failed=1; finish; }
tests/vm/setup.sh || { failed=1; finish; }
tests/runtimes/install.sh || { failed=1; finish; }
machine >$logs/machine.before
part "build of the host" host/build.sh || finish
part "build of the plugins" plugins/build.sh || finish
part "check" tests/check.sh
part "unit tests" tested --workspace "${apart[@]/#/--exclude=}"
part "end to end" tested -p sandwire-harness
part "every crash point" tested -p sandwire-crash
# Always the same steps here, so that a failure is of the change and not of the day; make soak takes others.
part "model" env MODEL_SEED=77 cargo test --locked --profile tool --no-fail-fast -p sandwire-model
part "beside the native plugins" tested -p sandwire-differential
part "podman" tests/runtimes/podman.sh
part "containerd" tests/runtimes/containerd.sh
part "containerd 2" env CONTAINERD=2 tests/runtimes/containerd.sh
part "docker" tests/runtimes/docker.sh
part "cnitool" tests/runtimes/cnitool.sh
part "full kernel" tests/vm/lane.sh
part "lab" tests/lab/self-test.sh
part "bagpipe" tests/lab/bagpipe.sh
part "demo-local" demo/demo-local.sh
part "demo" demo/demo.sh
part "nothing left" unchanged
finish
