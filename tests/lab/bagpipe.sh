#!/bin/bash
# The bagpipe plugin with the real daemons: what a scripted agent can't prove. Calls the plugin as a runtime does; prints a line
# for each claim and exits with 1 at the first that is not so.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lab.sh"
[ "${LAB_INSIDE:-}" = yes ] || "$here/install.sh"
lab_enter "$@"

# claim TEXT COMMAND...
claim() {
  local text=$1 out
  shift
  if out=$("$@" 2>&1); then
    echo "ok   $text"
  else
    printf 'FAIL %s\n     %s\n%s\n' "$text" "$*" "$out"
    exit 1
  fi
}
is_not() { ! "$@"; }

# cni NODE VERB POD CONFIG [IFNAME]: stdout and status are the plugin's. ADD's result is kept, and given to the others.
cni() {
  local node=$1 verb=$2 pod=$3 config=$4 kept=$LAB_RUN/result.$1.$3 status=0 out
  if [ "$verb" != ADD ] && [ -s "$kept" ]; then config=$(jq --slurpfile result "$kept" '.prevResult = $result[0]' <<<"$config"); fi
  out=$(node_exec "$node" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin CNI_COMMAND="$verb" CNI_CONTAINERID="pod-$pod" CNI_IFNAME=eth0 \
    CNI_NETNS="/run/netns/$pod" CNI_PATH=/opt/cni/bin /opt/cni/bin/bagpipe <<<"$config" 2>>"$LAB_RUN/stderr") || status=$?
  if [ "$verb" = ADD ]; then if [ $status = 0 ]; then printf '%s' "$out" >"$kept"; else rm -f "$kept"; fi; fi
  printf '%s\n' "$out"
  return $status
}
# refused NODE VERB POD CONFIG CODE TEXT: the call fails with this code and a text that contains TEXT.
refused() {
  local out
  if out=$(cni "$1" "$2" "$3" "$4"); then echo "it succeeded: $out"; return 1; fi
  jq -e --argjson code "$5" --arg text "$6" '.code == $code and (.msg + "; " + .details | contains($text))' <<<"$out" >/dev/null ||
    { echo "$out"; return 1; }
}
address() { jq -r '.ip4.ip // .ips[0].address' "$LAB_RUN/result.$1.$2" | cut -d/ -f1; }
# pings NODE POD ADDRESS [OPTIONS]: tried again for some seconds, since routes take a moment to arrive.
pings() {
  local n
  for n in $(seq 20); do
    pod_exec "$1" "$2" ping -q -c 1 -W 1 "${@:4}" "$3" && return 0
    sleep 0.3
  done
  return 1
}
add() { pod_new "$1" "$2"; cni "$1" ADD "$2" "$3"; }
# clean NODE: no interface, VPN instance, lease or journal entry of any attachment.
clean() {
  local left
  left=$(
    node_exec "$1" ip -o link | grep -oE '(evpn---|vxlan--|veth)[^:@ ]*' || true
    looking_glass "$1" vpns/instances | jq -r '.[].id'
    node_exec "$1" find /var/lib/cni/networks -type f ! -name lock ! -name 'last_reserved_ip.*'
    node_exec "$1" find /run/sandwire/journal -path '*/locks' -prune -o -type f -print
  )
  [ -z "$left" ] || { echo "$left"; return 1; }
}
# repair_would NODE KIND: a dry run has it to mend, and nothing else.
repair_would() {
  local out
  out=$(sandwire_ctl "$1" repair --dry-run --json) && { echo "exit status 0: $out"; return 1; }
  jq -e --arg kind "$2" '[.[].kind] | unique == [$kind]' <<<"$out" >/dev/null || { echo "$out"; return 1; }
}
no_routes() { [ -z "$(gobgp_routes)" ]; }

# network NAME RT RANGE-START [JQ]
network() {
  jq -nc --arg name "$1" --arg rt "$2" --arg start "$3" '{cniVersion:"1.1.0",name:$name,type:"bagpipe",import_rt:[$rt],export_rt:$rt,
    ipam:{type:"host-local",subnet:"10.1.2.0/24",rangeStart:$start,routes:[{dst:"0.0.0.0/0"}]}} | '"${4:-.}"
}

lab_up 2
for node in 1 2; do lab_install $node >/dev/null; done
# Not the MTU that a plugin would take which can't see the underlay.
for name in node1 node2; do lab_exec $name ip link set eth0 mtu 1440; done

large_mtu() {
  : >"$LAB_RUN/stderr"
  add 1 large "$(jq -c '.mtu = "1500"' <<<"$one")" &&
    [ "$(pod_exec 1 large cat /sys/class/net/eth0/mtu)" = 1500 ] &&
    grep "mtu 1500 does not fit through the tunnel, whose packets hold 1390" "$LAB_RUN/stderr" &&
    cni 1 DEL large "$one" && pod_gone 1 large
}

# ---- gateway on every node, MTU of the tunnel
one=$(network pods 64512:90 10.1.2.10 '.isGateway = true')
two=$(network pods 64512:90 10.1.2.20 '.isGateway = true')
claim "STATUS: the agent has its BGP session" cni 1 STATUS none "$one"
claim "ADD on node 1" add 1 a "$one"
claim "ADD on node 2" add 2 b "$two"
claim "a second pod on node 1" add 1 c "$one"
for pod in "1 a" "1 c" "2 b"; do
  # shellcheck disable=SC2086 # NODE POD
  claim "node ${pod% *}: pod ${pod#* } reaches the gateway" pings $pod 10.1.2.1
done
gateway_mac() { pod_exec "$1" "$2" ip -j neigh show 10.1.2.1 | jq -r '.[0].lladdr'; }
claim "the gateway has the same MAC on both nodes ($(gateway_mac 1 a))" [ "$(gateway_mac 1 a)" = "$(gateway_mac 2 b)" ]
claim "a pod reaches the other node's by VXLAN" pings 1 a "$(address 2 b)"
claim "and its own node's by the bridge" pings 1 a "$(address 1 c)"
claim "one VPN instance per network, not per pod" [ "$(looking_glass 1 vpns/instances | jq length)" = 1 ]
claim "MTU 1390: the underlay's less 50" [ "$(pod_exec 1 a cat /sys/class/net/eth0/mtu)" = 1390 ]
claim "a packet of that size reaches the other node unfragmented" pings 1 a "$(address 2 b)" -M do -s 1362
claim "and one byte more does not" is_not pod_exec 1 a ping -c 1 -W 1 -M do -s 1363 "$(address 2 b)"
claim "a larger mtu is taken as it is, with a warning" large_mtu
claim "the node itself is reached through the gateway" pings 1 a 192.0.2.1
claim "CHECK" cni 1 CHECK a "$one"

# ---- ADD that fails leaves nothing, in the kernel nor at the agent
before=$(looking_glass 1 vpns/instances)
pod_new 1 bad
for rt in 90 a:b 4200000000:1; do
  claim "route target $rt is refused" refused 1 ADD bad "$(jq -c --arg rt $rt '.import_rt = $rt' <<<"$one")" 7 "\"$rt\" is no route target"
done
vni=$(network vni 64512:95 10.1.2.30 '.vni = 5000')
claim "a VNI of the operator's choice" add 1 v "$vni"
claim "it is the one of the tunnel" sh -c "[ '$(node_exec 1 ip -d -j link show type vxlan | jq '[.[].linkinfo.info_data.id] | index(5000) != null')' = true ]"
claim "the agent refuses the same VNI for another network" refused 1 ADD bad "$(network vni2 64512:96 10.1.2.40 '.vni = 5000')" 999 "already exists"
claim "DEL of the network with a VNI" cni 1 DEL v "$vni"
pod_gone 1 v
claim "the agent has no instance more than before" [ "$before" = "$(looking_glass 1 vpns/instances)" ]
claim "the pod whose ADD failed has no interface" is_not pod_exec 1 bad ip link show eth0
pod_gone 1 bad

# ---- eight at once
parallel() {
  local n jobs=() job
  for n in 1 2 3 4 5 6 7 8; do
    cni 1 "$1" "p$n" "$one" >"$LAB_RUN/parallel.$n" & jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || { cat "$LAB_RUN"/parallel.*; return 1; }; done
}
for n in 1 2 3 4 5 6 7 8; do pod_new 1 "p$n"; done
claim "eight ADDs at once" parallel ADD
claim "eight different addresses" [ "$(for n in 1 2 3 4 5 6 7 8; do address 1 p$n; done | sort -u | wc -l)" = 8 ]
claim "eight DELs at once" parallel DEL
for n in 1 2 3 4 5 6 7 8; do pod_gone 1 "p$n"; done

# ---- the agent dies, and comes back without memory
agent_stop 2 KILL
agent_start 2
agent_ready 2
claim "another agent knows of no attachment" [ "$(looking_glass 2 vpns/instances | jq length)" = 0 ]
claim "CHECK says so, and what to do" refused 2 CHECK b "$two" 999 "run sandwirectl repair"
claim "repair finds it, and only looks when it is to" repair_would 2 lost-registration
claim "repair attaches it again" sandwire_ctl 2 repair
claim "its pod reaches the other node again" pings 2 b "$(address 1 a)"
claim "and its gateway" pings 2 b 10.1.2.1
claim "CHECK" cni 2 CHECK b "$two"
agent_stop 2 KILL
claim "STATUS: code 50 without the agent" refused 2 STATUS none "$two" 50 "is down"
claim "CHECK fails without the agent" refused 2 CHECK b "$two" 11 bagpipe
pod_new 2 late
claim "ADD fails without the agent" refused 2 ADD late "$two" 11 bagpipe
claim "and leaves the pod as it was" is_not pod_exec 2 late ip link show eth0
claim "DEL succeeds without the agent" cni 2 DEL b "$two"
claim "and again" cni 2 DEL b "$two"
pod_gone 2 b
agent_start 2
agent_ready 2
claim "ADD works with the new agent" cni 2 ADD late "$two"
claim "its pod reaches the other node" pings 2 late "$(address 1 a)"
claim "CHECK" cni 2 CHECK late "$two"
pod_gone 2 late
claim "DEL of a pod that is dead" cni 2 DEL late "$two"

# ---- the reflector dies
kill "$(<"$LAB_RUN/gobgpd.pid")"
disconnected() { [ "$(looking_glass 1 summary | jq .BGP_established_peers)" = 0 ]; }
lab_until 60 "the end of node 1's session" disconnected
claim "STATUS: code 50 without a BGP peer" refused 1 STATUS none "$one" 50 "no established BGP peer"

# ---- the last one leaves
claim "the bridge is there while a pod is" node_exec 1 ip link show type bridge
for pod in a c; do
  claim "DEL $pod" cni 1 DEL $pod "$one"
  pod_gone 1 $pod
done
claim "with the last DEL the bridge goes, and node 1 is clean" clean 1
# What the agent could not be told while it was dead is told it in GC.
kept() { node_exec 2 find /run/sandwire/journal -path '*/locks' -prune -o -type f -print | grep -q .; }
claim "the detach of the pod that went while the agent was dead is kept" kept
claim "GC" cni 2 GC none "$(jq -c '."cni.dev/valid-attachments" = []' <<<"$two")"
claim "node 2 is clean" clean 2
