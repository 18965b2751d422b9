#!/bin/bash
# The lab by itself, without a plugin: an endpoint attached by hand makes routes at the reflector and goes again; two labs
# run beside each other; a lab that is killed, by whatever signal at whatever moment, leaves no process, link, namespace or mount.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lab.sh"

if [ "${1:-}" = inside ]; then
  lab_enter "$@"
  lab_up 1
  node_exec 1 ip link add vp type veth peer name vq
  node_exec 1 ip link set vp up
  body='{"vpn_type":"evpn","vpn_instance_id":"selftest","import_rt":["64512:91"],"export_rt":["64512:91"],
    "local_port":{"linuxif":"vp"},"mac_address":"0a:00:00:00:09:01","ip_address":"10.9.0.2/24","advertise_subnet":false}'
  for call in attach detach; do
    node_exec 1 curl -sf -H 'Accept: application/json' -H 'Content-Type: application/json' -d "$body" \
      "http://127.0.0.1:8082/${call}_localport" >/dev/null
    wanted=$([ $call = attach ] && echo 2 || echo 0)
    seen() { [ "$(gobgp_routes | wc -l)" = "$wanted" ]; }
    lab_until 60 "$wanted routes at the reflector after $call" seen
  done
  # One that is to be killed at some moment may not have ended by itself before: on a fast machine all of the above takes 3 s.
  [ "${2:-}" != stay ] || sleep infinity
  exit 0
fi

"$here/install.sh"
# Everything in a lab inherits this mark, and a namespace lives as long as a process or a mount holds it.
left() {
  local environ
  for environ in /proc/[0-9]*/environ; do
    if grep -qsz "^MARK_OF_LAB=$1\$" "$environ"; then echo "$environ"; fi
  done
  grep -s "$LAB_RUN" /proc/self/mounts || true
}

"$0" inside & one=$!
"$0" inside & two=$!
wait $one
wait $two
echo "ok   two labs beside each other"

for signal in KILL TERM INT HUP KILL TERM; do
  mark=$$.$RANDOM
  # INT is ignored by what a non-interactive shell starts in the background, HUP below nohup: the lab is started with them in their
  # default, for a shell can't trap what it was started to ignore.
  python3 -c 'import os, signal, sys; [signal.signal(s, signal.SIG_DFL) for s in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)]
os.execvp(sys.argv[1], sys.argv[1:])' env "MARK_OF_LAB=$mark" "$0" inside stay >/dev/null 2>&1 & lab=$!
  there() { [ -n "$(left "$mark")" ]; }
  lab_until 60 "the lab under test" there
  sleep "$((RANDOM % 4)).$((RANDOM % 8))"
  there || lab_fail "the lab under test ended by itself"
  kill -$signal $lab 2>/dev/null || true
  wait $lab 2>/dev/null || true
  gone() { [ -z "$(left "$mark")" ]; }
  lab_until 60 "nothing of the lab after SIG$signal" gone
  echo "ok   nothing left after SIG$signal"
done
