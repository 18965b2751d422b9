#!/bin/bash
# The CNI project's own runtime, cnitool (libcni 1.3), with the whole chain at spec 1.1.0, on a plugin directory that holds
# nothing but Sandwire: tests/runtimes/cnitool.sh
# Prints a line for each claim and exits with 1 at the first that is not so. LONG=1: many attachments, some at once.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ "${LAB_INSIDE:-}" = yes ] || "$here/install.sh" cnitool
. "$here/runtime.sh"
runtime_enter "$@"

RUNTIME_CNI=1.1.0
network=/etc/cni/net.d/pods.conflist
export CNI_PATH=/opt/cni/bin NETCONFPATH=/etc/cni/net.d
# What a pod with a host port and a bandwidth is attached with. cnitool keeps it with the result, but its DEL doesn't take it from there.
asked='{"portMappings": [{"hostPort": 18080, "containerPort": 8080, "protocol": "tcp"},
    {"hostPort": 18053, "containerPort": 8053, "protocol": "udp"}],
  "bandwidth": {"ingressRate": 20000000, "ingressBurst": 4000000, "egressRate": 10000000, "egressBurst": 4000000}}'

# tool VERB NETWORK POD
tool() { "$TOOLS/bin/cnitool" "$1" "$2" "/run/netns/$3"; }
# As cnitool makes it from the namespace's path.
id_of() { printf 'cnitool-%s' "$(printf '/run/netns/%s' "$1" | sha512sum | cut -c1-20)"; }
kept() { echo "/var/lib/cni/results/${2:-pods}-$(id_of "$1")-eth0"; }
# attach POD [CAPABILITIES]: its result in $LAB_RUN/POD.json.
attach() { CAP_ARGS=${2:-} tool add pods "$1" >"$LAB_RUN/$1.json"; }
address() { jq -er ".ips[$2].address" "$LAB_RUN/$1.json" | cut -d/ -f1; }
inside() { ip netns exec "$@"; }
# page_from POD ADDRESS PORT
page_from() {
  local address=$2
  [[ $address != *:* ]] || address="[$address]"
  inside "$1" curl -s -m 5 --retry 5 --retry-connrefused "http://$address:$3/"
}
gone() { ! ip -n "$1" link show eth0 && [ ! -e "$(kept "$1")" ] && ! grep -rl "$(id_of "$1")" /var/lib/cni/networks; }
# A server that sends back what it gets by UDP; udp COMMAND... ADDRESS PORT asks it.
cat >"$LAB_RUN/echo.py" <<'T'
import socket, sys
end = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
if len(sys.argv) == 2:
    end.bind(("::", int(sys.argv[1])))
    while True:
        end.sendto(*end.recvfrom(100))
address = sys.argv[1] if ":" in sys.argv[1] else f"::ffff:{sys.argv[1]}"
end.settimeout(5)
end.sendto(b"it works", (address, int(sys.argv[2])))
print(end.recv(100).decode())
T
udp() { "${@:1:$#-2}" /usr/bin/python3 "$LAB_RUN/echo.py" "${@: -2}"; }
# works POD: it has its interface, and the other host answers it, which knows of no container's address.
works() { inside "$1" ping -c 1 -W 5 192.0.2.2 && inside "$1" ping -c 1 -W 5 2001:db8::2; }

runtime_network pods cni-tool 10.85.0.0/24 fd00:85::/64
runtime_outside
mkdir -p "$LAB_RUN/www"
echo 'it works' >"$LAB_RUN/www/index.html"
for pod in blue green; do ip netns add $pod && ip -n $pod link set lo up; done
inside blue busybox httpd -h "$LAB_RUN/www" -p 8080
inside blue /usr/bin/python3 "$LAB_RUN/echo.py" 8053 &
server_up() { [ -n "$(inside blue ss -Hlun sport = 8053)" ]; }
lab_until 20 "a server for UDP" server_up

# ---- add, check
claim "status: every plugin of the chain could attach" tool status pods blue
claim "add" attach blue "$asked"
two_of_1_1() { jq -e '.cniVersion == "1.1.0" and (.ips | length) == 2 and (.interfaces | map(select(.sandbox != null)) | length) == 1' "$LAB_RUN/blue.json"; }
claim "... with a result of 1.1.0, an address of each family" two_of_1_1
kept_as_printed() { jq -e --slurpfile printed "$LAB_RUN/blue.json" '.kind == "cniCacheV1" and .result == $printed[0]' "$(kept blue)"; }
claim "... that cnitool keeps" kept_as_printed
claim "check, with what it has kept" tool check pods blue
if has_chained tuning; then
  claim "the chain's last plugin has done its work" is 777 inside blue cat /sys/class/net/eth0/tx_queue_len
  ip -n blue link set eth0 txqueuelen 500
  claim "check notices what somebody has changed" refused "Transmit Queue Length of eth0 is 777, current value is 500" tool check pods blue
  ip -n blue link set eth0 txqueuelen 777
  claim "... and that it is as it was" tool check pods blue
fi

# ---- traffic
claim "the node reaches it" ping -c 1 -W 5 "$(address blue 0)"
claim "... by IPv6 as well" ping -c 1 -W 5 "$(address blue 1)"
claim "it reaches another host, masqueraded, by both" works blue
if has_chained portmap; then
  echo "     its host port"
  claim_port 18080 page_from blue
  claim "... UDP from another host" fetched udp lab_exec outside 192.0.2.1 18053
  claim "... by IPv6" fetched udp lab_exec outside 2001:db8::1 18053
  claim "... UDP from the node" fetched udp env 192.0.2.1 18053
  claim "... UDP from itself" fetched udp inside blue 192.0.2.1 18053
fi
if has_chained bandwidth; then
  told "what it gets is limited" rate 20 "$(address blue 0)" /proc/self/ns/net /run/netns/blue
  told "... and what it sends" rate 10 10.85.0.1 /run/netns/blue /proc/self/ns/net
fi
claim "another one, without capabilities" attach green
claim "... reaches the first one's server" fetched page_from green "$(address blue 0)" 8080
claim "... by IPv6 as well" fetched page_from green "$(address blue 1)" 8080

# ---- gc
# A runtime that has lost what it kept of green: nobody will ever call DEL for it.
rm "$(kept green)"
claim "gc that lists the first" "$LAB_TREE/target/tool/sandwirectl" call gc --network $network --keep "$(id_of blue)/eth0"
claim "... takes the other, of which only the plugins know" gone green
claim "... and leaves the first as it was" works blue
claim "... check finds nothing to complain of" tool check pods blue
if has_chained portmap; then claim "... and its host port" fetched lab_exec outside curl -s -m 5 http://192.0.2.1:18080/; fi

# What cnitool sends: a plugin directory before ours that writes down what passes through.
mkdir "$LAB_RUN/spy"
cat >"$LAB_RUN/spy/bridge" <<'T'
#!/bin/bash
jq -c --arg plugin "${0##*/}" '{command: env.CNI_COMMAND, plugin: $plugin, config: .}' | tee -a "${0%/*}/calls" | jq -c .config | "/opt/cni/bin/${0##*/}"
T
chmod 755 "$LAB_RUN/spy/bridge"
for plugin in $(jq -r '.[].type' <<<"$CHAIN"); do ln -s bridge "$LAB_RUN/spy/$plugin"; done
spied() { CNI_PATH=$LAB_RUN/spy:$CNI_PATH tool "$@"; }
# sent COMMAND: the plugins that got it, in order.
sent() { jq -sr --arg command "$1" '[.[] | select(.command == $command) | .plugin] | join(" ")' "$LAB_RUN/spy/calls"; }
chain=$(jq -r '[.plugins[].type] | join(" ")' $network)
backwards=$(jq -r '[.plugins[].type] | reverse | join(" ")' $network)

claim "green again" attach green
rm "$(kept green)"
claim "cnitool gc" spied gc pods blue
claim "... first detaches what cnitool has kept, the first" gone blue
claim "... with a DEL to each plugin, last one first" is "$backwards" sent DEL
claim "... then a GC to each" is "$chain" sent GC
no_list() { jq -se '[.[] | select(.command == "GC") | .config | has("cni.dev/valid-attachments") or has("cni.dev/attachments")] | any | not' "$LAB_RUN/spy/calls"; }
claim "... without a list: it says nothing of attachments that it doesn't know" no_list
claim "... so that these stay" works green
claim "gc with an empty list" "$LAB_TREE/target/tool/sandwirectl" call gc --network $network --keep-none
claim "... takes them too" gone green
claim "nothing is left" nothing_left

# ---- del
claim "add" attach blue "$asked"
claim "del, without the capabilities" tool del pods blue
claim "... takes it away" gone blue
if has_chained portmap; then
  claim "... and its host ports" is_not curl -s -m 2 http://192.0.2.1:18080/
  claim "... UDP's as well" is_not udp lab_exec outside 192.0.2.1 18053
fi
claim "del again" tool del pods blue
claim "add after that" attach blue "$asked"
claim "... works" works blue
ip netns del blue
claim "del when the namespace is gone" tool del pods blue
claim "del again" tool del pods blue
claim "nothing is left" nothing_left

# ---- a network with a single address
runtime_network small cni-small 10.87.0.0/30
full="no IP addresses available in range set: 10.87.0.1-10.87.0.2"
claim "status of a network with one address" tool status small green
claim "add" tool add small green
claim "status: not ready, and why" refused "$full" tool status small green
ip netns add red
claim "add of another fails with that" refused "$full" tool add small red
claim "del" tool del small green
claim "status: ready" tool status small green

if [ -n "$LONG" ]; then
  for n in $(seq 24); do ip netns add "many$n"; done
  # all VERB: for 24 at once; then "check" tells whether one of them failed.
  all() {
    local n pids=() status=0
    for n in $(seq 24); do tool "$1" pods "many$n" >"$LAB_RUN/many$n" 2>&1 & pids+=($!); done
    for n in $(seq 24); do wait "${pids[n - 1]}" || { cat "$LAB_RUN/many$n"; status=1; }; done
    return $status
  }
  for verb in add check del del; do claim "$verb of 24 at once" all $verb; done
  claim "24 again" all add
  claim "cnitool gc" tool gc pods many1
fi
claim "nothing is left" nothing_left
