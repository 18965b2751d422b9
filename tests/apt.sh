# Sourced by the scripts that install what the build and the tests run. Wants a function `say`.

# debian_packages LOG PACKAGE...: installs these, when there are any; else exits with 1 and the line to run.
debian_packages() {
  local log=$1 line packages ours=
  shift
  [ $# -gt 0 ] || return 0
  mapfile -t packages < <(printf '%s\n' "$@" | sort -u)
  line="apt-get install --no-install-recommends ${packages[*]}"
  say "installing Debian's ${packages[*]}"
  [ "$(id -u)" = 0 ] || { say "this needs root; as root: $line"; exit 1; }
  # Daemons are run by the tests in namespaces of their own; the packaged services must not start on the machine.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    ours=yes
  fi
  apt-get update -qq || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >"$log" 2>&1 ||
    { tail -20 "$log" >&2; say "failed (all of it: $log); run: $line"; exit 1; }
  if [ -n "$ours" ]; then
    rm -f /usr/sbin/policy-rc.d
    trap - EXIT
  fi
}
