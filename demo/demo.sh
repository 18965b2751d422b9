#!/bin/bash
# make demo: two nodes whose pods are attached by a network configuration of 2016, reach each other over EVPN/VXLAN, and go
# without a trace. Real daemons: gobgpd as route reflector, one bagpipe-bgp per node. Every claim it prints is checked; it
# exits with 1 at the first that is not so. All of it happens in namespaces that end with it (tests/lab/lab.sh).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
. "$here/show.sh"
. "$root/tests/lab/lab.sh"
tools=${SANDWIRE_TOOLS:-/var/tmp/sandwire-tools}/bin

if [ "${LAB_INSIDE:-}" != yes ]; then
  built "$root"
  "$root/tests/lab/install.sh"
  # The CNI project's own tool for calling plugins, where there is Go; else sandwirectl calls them.
  if [ ! -x "$tools/cnitool" ] && command -v go >/dev/null; then
    echo "installing cnitool with Go" >&2
    GOFLAGS=-mod=mod GOTOOLCHAIN=local GOBIN=$tools go install github.com/containernetworking/cni/cnitool@v1.3.0 ||
      echo "cnitool could not be installed; sandwirectl makes the calls" >&2
  fi
fi
lab_enter "$@"

runtime=sandwirectl
[ ! -x "$tools/cnitool" ] || runtime=cnitool

# cni NODE add|del|check NETWORK POD
cni() {
  if [ $runtime = cnitool ]; then
    node_exec "$1" env CNI_PATH=/opt/cni/bin NETCONFPATH=/etc/cni/net.d "$tools/cnitool" "$2" "$3" "/run/netns/$4"
  else
    sandwire_ctl "$1" call "$2" --network "$(node_exec "$1" sh -c "ls /etc/cni/net.d/*-$3.*")" --netns "/run/netns/$4" --container-id "pod-$4"
  fi
}

# attach NODE NETWORK POD: a namespace and an ADD; the result is kept, its address shown.
attach() {
  local result=$LAB_RUN/node$1.$3.json got
  pod_new "$1" "$3"
  cni "$1" add "$2" "$3" >"$result" 2>"$result.log" || { cat "$result" "$result.log"; exit 1; }
  got=$(address "$1" "$3")
  printf '   %snode %s $ %s add %s /run/netns/%s%s   %s\n' "$dim" "$1" $runtime "$2" "$3" "$plain" "$got"
  sed 's/^/     /' "$result.log"
}

# address NODE POD: its IPv4 address, from what ADD printed.
address() { jq -r '.ip4.ip // .ips[0].address' "$LAB_RUN/node$1.$2.json"; }
reach() { pod_exec "$1" "$2" ping -c 2 -i 0.2 -W 1 "$(address "$3" "$4" | cut -d/ -f1)"; }

# configure NODE FILE JSON
configure() { node_exec "$1" sh -c 'cat >"$1"' - "/etc/cni/net.d/$2" <<<"$3"; }

# snapshot NODE: everything that an attachment could leave.
snapshot() {
  node_exec "$1" ip -o link | awk -F': ' '{ print "link " $2 }' | grep -vE ' (lo|eth0@)' || true
  node_exec "$1" find /var/lib/cni/networks -type f ! -name lock ! -name 'last_reserved_ip.*' 2>/dev/null | sed 's/^/lease /' || true
  node_exec "$1" find /var/lib/cni/results -type f 2>/dev/null | sed 's/^/cached result /' || true
  node_exec "$1" nft -j list ruleset | jq -r '.nftables[] | select(.rule or (.set.elem // .map.elem)) | "nftables " + tostring'
  node_exec "$1" find /run/sandwire/journal -path '*/locks' -prune -o -type f -print 2>/dev/null | sed 's/^/journal /' || true
  looking_glass "$1" vpns/instances | jq -r '.[] | "VPN instance " + .id'
}

title "Sandwire: a network configuration published in 2016, unchanged, and every decision made by a WebAssembly component"

step "Two nodes and a route reflector"
began=$EPOCHREALTIME
lab_up 2
say "rr 192.0.2.254 (gobgpd), node 1 and node 2 (bagpipe-bgp $(looking_glass 1 summary | jq -r .version)); BGP is up after $(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $began }") s"
shown_as='gobgp neighbor' shows -w rr rr_exec gobgp neighbor

step "Sandwire on each node"
for node in 1 2; do
  lab_install $node >"$LAB_RUN/install$node" 2>&1 || { cat "$LAB_RUN/install$node"; exit 1; }
done
shown_as='ls -l /opt/cni/bin' shows -w 'node 1' node_exec 1 sh -c "ls -l /opt/cni/bin | awk 'NR > 1 { printf \"%s %9s  %-11s %s %s\\n\", \$1, \$5, \$9, \$10, \$11 }'"
shown_as='sandwirectl plugins' shows -n 12 -w 'node 1' sandwire_ctl 1 plugins

step "The configuration, as the article has it"
# host-local knows only its own node, so node 2's addresses start higher; that is all the difference.
article='{
  "name": "mynet",
  "type": "bagpipe",
  "importrt": "64512:90",
  "exportrt": "64512:90",
  "isGateway": false,
  "ipMasq": false,
  "mtu": "1500",
  "ipam": {
    "type": "host-local",
    "subnet": "10.1.2.0/24",
    "routes": [ { "dst": "0.0.0.0/0" } ]
  }
}'
configure 1 10-mynet.conf "$article"
configure 2 10-mynet.conf "${article/\"subnet\"/\"rangeStart\": \"10.1.2.128\", \"subnet\"}"
shown_as='cat /etc/cni/net.d/10-mynet.conf' shows -w 'node 1' node_exec 1 cat /etc/cni/net.d/10-mynet.conf
for node in 1 2; do snapshot $node >"$LAB_RUN/before$node"; done

step "Two pods on each node"
for node in 1 2; do
  attach $node mynet blue
  attach $node mynet green
done
say "the result is of CNI 0.1.0, as the configuration asks by naming no version:"
jq -c . "$LAB_RUN/node1.blue.json" | sed 's/^/     /'
claim "a result of 0.1.0 has ip4" jq -e .ip4.ip "$LAB_RUN/node1.blue.json"
say "what the article had to find with ethtool -S and bridge by hand:"
for node in 1 2; do shown_as='sandwirectl attachments' shows -w "node $node" sandwire_ctl $node attachments; done

step "EVPN routes in goBGP: one of type 2 (macadv) per pod, one of type 3 (multicast) per node"
routes() { [ "$(gobgp_routes | grep -c "$1")" = "$2" ]; }
lab_until 60 "six EVPN routes at the reflector" routes 'type:' 6
shown_as='gobgp global rib -a evpn' shows -w rr gobgp_routes
claim "four pods are announced" routes 'type:macadv' 4
claim "two nodes take part" routes 'type:multicast' 2

step "What node 2 made of node 1's routes"
bridge_of() { node_exec "$1" ip -j link | jq -r '.[].ifname | select(startswith("evpn---"))'; }
tunnel=vxlan--$(bridge_of 2 | head -1 | cut -c8-)
blue_mac=$(pod_exec 1 blue cat /sys/class/net/eth0/address)
forwarding() { node_exec 2 bridge fdb show dev "$tunnel" | grep dst | sort -u; }
knows_blue() { forwarding | grep -q "$blue_mac dst 192.0.2.1"; }
lab_until 60 "node 1's pods in the forwarding table of node 2" knows_blue
shown_as="bridge fdb show dev $tunnel" shows -w 'node 2' forwarding
shown_as="ip neigh show dev $tunnel" shows -w 'node 2' node_exec 2 ip neigh show dev "$tunnel"
claim "node 2 sends to node 1's blue ($blue_mac) by VXLAN to 192.0.2.1" knows_blue
claim "and knows its MAC without asking" sh -c "grep -q '$blue_mac PERMANENT' <<'T'
$(node_exec 2 ip neigh show dev "$tunnel")
T"

step "Pods reach each other"
# Pings only: the pods' own IPv6 chatter is in the tunnel too. The ethertype inside is at 28, the protocol at 39.
node_exec 1 timeout 10 tcpdump -c 2 -nn -i eth0 'udp port 4789 and udp[28:2] = 0x0800 and udp[39] = 1' >"$LAB_RUN/wire" 2>"$LAB_RUN/wire.log" &
wire=$!
lab_until 60 tcpdump grep -q listening "$LAB_RUN/wire.log"
shown_as="ping $(address 2 blue | cut -d/ -f1)" shows -n 3 -w 'node 1, pod blue' reach 1 blue 2 blue
wait $wire || true
shown_as='tcpdump -nn -i eth0 udp port 4789' shows -n 4 -w 'node 1' cat "$LAB_RUN/wire"
claim "on the wire between the nodes it is VXLAN" grep -q VXLAN "$LAB_RUN/wire"
for from in 1:blue 1:green 2:blue 2:green; do
  for to in 1:blue 1:green 2:blue 2:green; do
    [ $from = $to ] || claim "node ${from/:/, pod } reaches node ${to/:/, pod }" reach "${from%:*}" "${from#*:}" "${to%:*}" "${to#*:}"
  done
done

step "Another tenant: the same subnet under other route targets"
# Route targets as a list under the agent's name of the key, a version, a list: all of it works beside the old form.
tenant='{ "cniVersion": "1.0.0", "name": "othernet", "plugins": [ { "type": "bagpipe", "import_rt": ["64512:91"], "export_rt": "64512:91",
    "ipam": { "type": "host-local", "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.START" } } ] }'
configure 1 20-othernet.conflist "${tenant/START/50}"
configure 2 20-othernet.conflist "${tenant/START/60}"
attach 1 othernet red
attach 2 othernet red
lab_until 60 "routes of the other tenant" routes 64512:91 4
heard_red() { reach 1 red 2 red; }
lab_until 60 "red to red" heard_red
claim "red on node 1 reaches red on node 2" reach 1 red 2 red
claim "red does not reach blue on its own node" is_not reach 1 red 1 blue
claim "red does not reach blue on the other node" is_not reach 1 red 2 blue
claim "blue does not reach red" is_not reach 2 blue 1 red
claim "and blue still reaches blue" reach 1 blue 2 blue

step "DEL, and nothing is left"
for node in 1 2; do
  for pod in blue green red; do
    network=$([ $pod = red ] && echo othernet || echo mynet)
    cni $node del $network $pod
    printf '   %snode %s $ %s del %s /run/netns/%s%s\n' "$dim" $node $runtime $network $pod "$plain"
    pod_gone $node $pod
  done
done
for node in 1 2; do
  shown_as='ip -brief link' shows -w "node $node" node_exec $node ip -br link
  shown_as='find /var/lib/cni/networks -type f' shows -w "node $node" node_exec $node find /var/lib/cni/networks -type f
  shown_as='nft list ruleset' shows -n 8 -w "node $node" node_exec $node nft list ruleset
  shown_as='find /run/sandwire/journal -type f' shows -w "node $node" node_exec $node find /run/sandwire/journal -path '*/locks' -prune -o -type f -print
  shown_as='curl .../looking-glass/vpns/instances' shows -w "node $node" looking_glass $node vpns/instances
  claim "node $node: no link, lease, rule, journal entry or VPN instance more than before" \
    same "$(cat "$LAB_RUN/before$node")" "$(snapshot $node)"
done
empty() { nothing "$(gobgp_routes)"; }
lab_until 60 "an empty table at the reflector" empty
shown_as='gobgp global rib -a evpn' shows -w rr rr_exec gobgp global rib -a evpn
claim "the reflector has no EVPN route" empty
title "${green}Done.$plain The nodes, the daemons and all their files end with this script."
