#!/bin/bash
# Debian's podman with its CNI backend, on a plugin directory that holds nothing but Sandwire: tests/runtimes/podman.sh
# Prints a line for each claim and exits with 1 at the first that is not so. LONG=1: many containers, at once and one by one.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ "${LAB_INSIDE:-}" = yes ] || "$here/install.sh" podman
. "$here/runtime.sh"
runtime_enter "$@"

# CAP_SYS_RESOURCE may be missing: limits above those of this shell would be refused.
cat >"$LAB_RUN/containers.conf" <<T
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=$(ulimit -Hu):$(ulimit -Hu)"]
cgroups = "disabled"
pids_limit = 0
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"
T
export CONTAINERS_CONF=$LAB_RUN/containers.conf
pod() {
  podman --root "$LAB_RUN/storage" --runroot /run/podman --tmpdir /run/podman/tmp --storage-driver vfs "$@"
}
in_ctr() { local name=$1; shift; pod exec "$name" "$@"; }
address() { pod inspect "$1" | jq -er ".[0].NetworkSettings.Networks[\"$2\"].${3:-IPAddress}"; }
tuned() { [ "$(in_ctr "$1" cat "/sys/class/net/$2/tx_queue_len")" = 777 ]; }
has_no() { is_not in_ctr "$1" ip link show "$2"; }
leases() { [ "$(find "/var/lib/cni/networks/$1" -type f ! -name lock ! -name 'last_reserved_ip.*' | wc -l)" = "$2" ]; }

runtime_network front cni-front 10.81.0.0/24 fd00:81::/64
runtime_network back cni-back 10.82.0.0/24
runtime_image "$LAB_RUN/image.tar"
claim "podman takes an image" pod import "$LAB_RUN/image.tar" box

claim "run" pod run -d --name web --network front box serve
web=$(address web front)
claim "the node reaches it at $web" ping -c 1 -W 5 "$web"
claim "... and its server" fetched curl -s -m 5 --retry 5 --retry-connrefused "http://$web:8080/"
if has_chained tuning; then claim "the chain's last plugin has done its work" tuned web eth0; fi

claim "another one of the same network" pod run -d --name client --network front box sleep 1000000
claim "... reaches the first" fetched in_ctr client page "$web" 8080
web6=$(address web front GlobalIPv6Address)
claim "... by IPv6, $web6" in_ctr client ping -c 1 -W 5 "$web6"

if has_chained portmap; then
  claim "a published port" pod run -d --name published --network front -p 18080:8080 box serve
  runtime_outside
  claim_port 18080 in_ctr published page
  claim "... is gone with its container" pod rm -f -t 0 published
  claim "... really" is_not curl -s -m 2 http://192.0.2.1:18080/
  ip link del to-outside
fi

claim "two networks" pod run -d --name both --network front,back box sleep 1000000
claim "... with an interface each" in_ctr both sh -c 'ip addr show eth0 && ip addr show eth1'
claim "... and the first container's server" fetched in_ctr both page "$web" 8080

claim "a MAC and an address that are asked for" pod run -d --name fixed --network front --ip 10.81.0.77 --mac-address 0a:58:0a:51:00:4d box sleep 1000000
fixed() { in_ctr fixed ip addr show eth0 | grep -q 'inet 10.81.0.77/24' && in_ctr fixed ip link show eth0 | grep -q 0a:58:0a:51:00:4d; }
claim "... are there" fixed
claim "an address that is taken is refused" is_not pod run --rm --network front --ip 10.81.0.77 box true

claim "connect" pod network connect back web
claim "... brings another interface" in_ctr web ip addr show eth1
if has_chained tuning; then claim "... tuned as well" tuned web eth1; fi
claim "... that works" in_ctr web ping -c 1 -W 5 "$(address both back)"
claim "disconnect" pod network disconnect back web
claim "... takes it away" has_no web eth1
claim "... and its address, of two" leases back 1

claim "restart" pod restart -t 0 web
web=$(address web front)
claim "... and it is there again, at $web" fetched curl -s -m 5 --retry 5 --retry-connrefused "http://$web:8080/"
claim "stop" pod stop -t 0 web
claim "... frees what it held" leases front 6
claim "start" pod start web

if [ -n "$LONG" ]; then
  for n in $(seq 10); do claim "one of ten, one by one: $n" pod run --rm --network front box ip addr show eth0; done
  many() {
    local n pids=() status=0
    for n in $(seq 12); do pod run --rm --network front,back box ip addr show eth1 >/dev/null & pids+=($!); done
    for n in "${pids[@]}"; do wait "$n" || status=1; done
    return $status
  }
  claim "twelve at once" many
fi

claim "remove all" pod rm -f -t 0 -a
claim "nothing is left" nothing_left
