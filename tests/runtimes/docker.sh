#!/bin/bash
# Docker's way to CNI, by the pattern of CNI's docker-run.sh: a container without a network, ADD on /proc/PID/ns/net, a second
# container that joins it. With Debian's dockerd, on a plugin directory that holds nothing but Sandwire: tests/runtimes/docker.sh
# Prints a line for each claim and exits with 1 at the first that is not so. LONG=1: many containers.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ "${LAB_INSIDE:-}" = yes ] || "$here/install.sh" docker
. "$here/runtime.sh"
runtime_enter "$@"

export DOCKER_HOST=unix:///run/docker.sock
mkdir -p /etc/docker
# Docker itself has no network here: CNI's plugins make all of it.
dockerd --data-root "$LAB_RUN/docker" --exec-root "$LAB_RUN/docker-exec" --host "$DOCKER_HOST" --pidfile "$LAB_RUN/dockerd.pid" \
  --bridge none --iptables=false --ip6tables=false --ip-forward=false --storage-driver vfs >"$LAB_RUN/dockerd.log" 2>&1 &
lab_until 90 "dockerd ($LAB_RUN/dockerd.log)" docker version

runtime_network pods cni-docker 10.84.0.0/24 fd00:84::/64
runtime_image "$LAB_RUN/image.tar"
claim "docker takes an image" docker import "$LAB_RUN/image.tar" box

netns_of() { echo "/proc/$(docker inspect -f '{{ .State.Pid }}' "$1")/ns/net"; }
# chain VERB NAME NETNS: every plugin of the network's list as libcni calls them; ADD's result is kept beside.
chain() {
  local verb=$1 name=$2 netns=$3 list=/etc/cni/net.d/pods.conflist count plugin n result=$LAB_RUN/$2.json order config
  count=$(jq '.plugins | length' $list)
  order=$(seq 0 $((count - 1)))
  [ "$verb" != DEL ] || order=$(seq $((count - 1)) -1 0)
  for n in $order; do
    config=$(jq -c --argjson n "$n" '.plugins[$n] + {name, cniVersion}' $list)
    if [ -s "$result" ] && { [ "$verb" != ADD ] || [ "$n" != 0 ]; }; then
      config=$(jq -c --slurpfile prev "$result" '.prevResult = $prev[0]' <<<"$config")
    fi
    plugin=$(jq -r .type <<<"$config")
    if ! env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin CNI_COMMAND="$verb" CNI_CONTAINERID="$name" CNI_IFNAME=eth0 CNI_NETNS="$netns" \
      CNI_PATH=/opt/cni/bin "/opt/cni/bin/$plugin" <<<"$config" >"$LAB_RUN/answer" 2>"$LAB_RUN/answer.err"; then
      cat "$LAB_RUN/answer" "$LAB_RUN/answer.err"
      return 1
    fi
    if [ "$verb" = ADD ]; then cp "$LAB_RUN/answer" "$result"; fi
  done
  if [ "$verb" = DEL ]; then rm -f "$result"; fi
}
# docker_run NAME: what docker-run.sh does.
docker_run() {
  docker run -d --name "$1-pause" --net=none box sleep 1000000 || return 1
  chain ADD "$1" "$(netns_of "$1-pause")" || return 1
  docker run -d --name "$1" --net="container:$1-pause" box serve
}
docker_end() {
  local netns
  netns=$(netns_of "$1-pause")
  docker rm -f "$1" || return 1
  chain DEL "$1" "$netns" || return 1
  docker rm -f "$1-pause"
}
address() { jq -r ".ips[$2].address" "$LAB_RUN/$1.json" | cut -d/ -f1; }

claim "a container without a network, ADD on its namespace, another that joins it" docker_run blue
claim "... has an interface" docker exec blue ip addr show eth0
claim "... that the node reaches" ping -c 1 -W 5 "$(address blue 0)"
claim "... by IPv6 as well" ping -c 1 -W 5 "$(address blue 1)"
claim "CHECK finds nothing to complain of" chain CHECK blue "$(netns_of blue-pause)"
if has_chained tuning; then claim "the chain's last plugin has done its work" is 777 docker exec blue cat /sys/class/net/eth0/tx_queue_len; fi
ln -s "$(netns_of blue-pause)" /run/netns/blue
listed() { ip netns list | grep -qw blue; }
claim "ip netns lists it through a link" listed
claim "... and shows what is inside" is "$(address blue 0)/24" sh -c 'ip -n blue -j -4 addr show eth0 | jq -r ".[0].addr_info[0] | \"\(.local)/\(.prefixlen)\""'
rm /run/netns/blue

claim "a second one" docker_run green
claim "... reaches the first one's server" fetched docker exec green page "$(address blue 0)" 8080
claim "... by IPv6 as well" fetched docker exec green page "$(address blue 1)" 8080
claim "DEL of the second, and its end" docker_end green
claim "the first is as it was" ping -c 1 -W 5 "$(address blue 0)"

# Who restarts a container loses the namespace before DEL comes.
claim "the first one dies with its namespace" docker rm -f blue blue-pause
claim "DEL finds none" chain DEL blue /proc/1000000/ns/net
no_veth() { [ -z "$(ip -o link show type veth)" ]; }
lab_until 30 "the kernel's end of the namespace" no_veth
if [ -n "$LONG" ]; then
  for n in $(seq 8); do claim "one of eight: $n" docker_run "many$n"; done
  for n in $(seq 8); do claim "... and its end: $n" docker_end "many$n"; done
fi
claim "nothing is left" nothing_left
