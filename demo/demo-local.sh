#!/bin/bash
# make demo-local: bridge, host-local and masquerading on one machine, without a daemon, in seconds. Every claim is checked;
# it exits with 1 at the first that is not so. All of it happens in namespaces that end with it (tests/lab/lab.sh).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
. "$here/show.sh"
. "$root/tests/lab/lab.sh"
if [ "${LAB_INSIDE:-}" != yes ]; then
  built "$root"
  "$root/tests/lab/install.sh" tools
fi
lab_enter "$@"

began=$EPOCHREALTIME
title "Sandwire on one machine: bridge and host-local as WebAssembly components"

step "A node, a neighbour outside, and Sandwire"
lab_switch
lab_node 1
lab_namespace outside
lab_cable outside 192.0.2.254
lab_install 1 >"$LAB_RUN/install" 2>&1 || { cat "$LAB_RUN/install"; exit 1; }
shown_as='ls /opt/cni/bin' shows -w node node_exec 1 ls -C /opt/cni/bin

step "A network"
node_exec 1 sh -c 'cat >/etc/cni/net.d/10-pods.conflist' <<'T'
{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    { "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
      "ipam": { "type": "host-local", "ranges": [ [ { "subnet": "10.1.2.0/24" } ], [ { "subnet": "fd00:1:2::/64" } ] ],
                "routes": [ { "dst": "0.0.0.0/0" }, { "dst": "::/0" } ] } }
  ]
}
T
shown_as='cat /etc/cni/net.d/10-pods.conflist' shows -w node node_exec 1 cat /etc/cni/net.d/10-pods.conflist

step "Two pods"
for pod in blue green; do
  pod_new 1 $pod
  before=$EPOCHREALTIME
  sandwire_ctl 1 call add --network /etc/cni/net.d/10-pods.conflist --netns /run/netns/$pod --container-id pod-$pod >"$LAB_RUN/$pod.json" || { cat "$LAB_RUN/$pod.json"; exit 1; }
  say "$pod  $(jq -r '[.ips[].address] | join("  ")' "$LAB_RUN/$pod.json")   $(awk "BEGIN { printf \"%.0f ms with the tool that called it\", ($EPOCHREALTIME - $before) * 1000 }")"
done
shown_as='sandwirectl attachments' shows -w node sandwire_ctl 1 attachments
address() { jq -r ".ips[$2].address" "$LAB_RUN/$1.json" | cut -d/ -f1; }
for family in 0 1; do
  claim "blue reaches green at $(address green $family)" pod_exec 1 blue ping -c 1 -W 2 "$(address green $family)"
done

step "Out of the node, behind its address"
lab_exec outside timeout 5 tcpdump -c 1 -nn -i eth0 icmp >"$LAB_RUN/outside" 2>"$LAB_RUN/outside.log" &
wire=$!
lab_until 60 tcpdump grep -q listening "$LAB_RUN/outside.log"
claim "blue reaches 192.0.2.254, which has no route back to it" pod_exec 1 blue ping -c 1 -W 2 192.0.2.254
wait $wire || true
shown_as='tcpdump -nn -i eth0 icmp' shows -w outside cat "$LAB_RUN/outside"
claim "there it comes from the node's address" grep -q 'IP 192.0.2.1 > 192.0.2.254' "$LAB_RUN/outside"
shown_as='nft list ruleset' shows -n 40 -w node node_exec 1 nft list ruleset

step "DEL, and nothing is left"
for pod in blue green; do
  sandwire_ctl 1 call del --network /etc/cni/net.d/10-pods.conflist --netns /run/netns/$pod --container-id pod-$pod
  pod_gone 1 $pod
done
claim "no veth" nothing "$(node_exec 1 ip -o link show type veth | grep -v ' eth0@' || true)"
claim "no lease" nothing "$(node_exec 1 find /var/lib/cni/networks -type f ! -name lock ! -name 'last_reserved_ip.*')"
claim "no masqueraded address" nothing "$(node_exec 1 nft -j list ruleset | jq -r '.nftables[] | (.set.elem // .map.elem // empty) | tostring')"
claim "no journal entry" nothing "$(node_exec 1 find /run/sandwire/journal -path '*/locks' -prune -o -type f -print)"
title "${green}Done$plain in $(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $began }") s. The node ends with this script."
