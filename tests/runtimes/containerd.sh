#!/bin/bash
# Debian's containerd on a plugin directory that holds nothing but Sandwire, by `ctr run --cni` and by the CRI as a kubelet
# drives it (cri.py): tests/runtimes/containerd.sh
# Prints a line for each claim and exits with 1 at the first that is not so. LONG=1: 50 pods, 8 at a time.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ "${LAB_INSIDE:-}" = yes ] || "$here/install.sh" containerd
. "$here/runtime.sh"
runtime_enter "$@"

socket=/run/containerd/containerd.sock
mkdir -p "$LAB_RUN/containerd" /run/containerd
cat >"$LAB_RUN/containerd.toml" <<T
version = 2
root = "$LAB_RUN/containerd/root"
state = "$LAB_RUN/containerd/state"
oom_score = 0
[grpc]
address = "$socket"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/box:1"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"
T
cri() { /usr/bin/python3 "$here/cri.py" "$socket" "$@"; }
ctr() { command ctr --address "$socket" "$@"; }
# in_pod ID COMMAND...: in a pod's own (sandbox) container.
in_pod() { local pod=$1; shift; ctr -n k8s.io tasks exec --exec-id "x$RANDOM$RANDOM" "$pod" "$@"; }
network_is() { cri ready | jq -e --argjson ready "$1" '.NetworkReady.status == $ready'; }
address() { cri status "$1" | jq -er ".ips[$2]"; }
state_is() { [ "$(cri status "$1" | jq -r .state)" = "$2" ]; }
# run NAME VARIABLE [OPTIONS]: a pod, its id in the variable.
run() {
  local -n id=$2
  id=$(cri run "$1" "${@:3}") && [ -n "$id" ]
}
fetched() { [ "$("$@")" = "it works" ]; }
is() { [ "$("${@:2}")" = "$1" ]; }

# box_archive FILE: the box as `docker save` would write it; its program is "sleep".
box_archive() {
  local folder=$LAB_RUN/archive digest
  mkdir -p "$folder"
  runtime_image "$folder/layer.tar"
  digest=$(sha256sum "$folder/layer.tar" | cut -d' ' -f1)
  jq -nc --arg digest "sha256:$digest" '{architecture: "amd64", os: "linux", config: {Entrypoint: ["/bin/serve"], Env: ["PATH=/bin"]},
    rootfs: {type: "layers", diff_ids: [$digest]}}' >"$folder/config.json"
  echo '[{"Config": "config.json", "RepoTags": ["localhost/box:1"], "Layers": ["layer.tar"]}]' >"$folder/manifest.json"
  tar -C "$folder" -cf "$1" manifest.json config.json layer.tar
}

containerd --config "$LAB_RUN/containerd.toml" >"$LAB_RUN/containerd.log" 2>&1 &
lab_until 60 "containerd ($LAB_RUN/containerd.log)" ctr version
box_archive "$LAB_RUN/box.tar"
for namespace in default k8s.io; do claim "containerd takes an image ($namespace)" ctr -n $namespace images import "$LAB_RUN/box.tar"; done

# ---- the CRI
claim "without a network the runtime is not ready" network_is false
runtime_network pods cni-pods 10.83.0.0/24 fd00:83::/64
lab_until 30 "NetworkReady" network_is true
claim "with one it is" network_is true

claim "a pod" run one one
one4=$(address "$one" 0) one6=$(address "$one" 1)
claim "... with an address of each family: $one4 and $one6" [ -n "$one4" ] && [ -n "$one6" ]
claim "... that the node reaches" ping -c 1 -W 5 "$one4"
claim "... by IPv6 as well" ping -c 1 -W 5 "$one6"
if has_chained tuning; then claim "the chain's last plugin has done its work" is 777 in_pod "$one" cat /sys/class/net/eth0/tx_queue_len; fi
claim "another pod" run two two
claim "... reaches the first one's server" fetched in_pod "$two" page "$one4" 8080
claim "... by IPv6 as well" fetched in_pod "$two" page "$one6" 8080

if has_chained portmap; then
  claim "a pod with a host port" run port port --port 18080:8080
  lab_namespace outside
  ip link add to-outside type veth peer name eth0 netns "$(<"$LAB_RUN/outside.pid")"
  ip addr add 192.0.2.1/24 dev to-outside
  ip link set to-outside up
  lab_exec outside sh -c 'ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up'
  claim "... from another host" fetched lab_exec outside curl -s -m 5 --retry 5 --retry-connrefused http://192.0.2.1:18080/
  claim "... from the node" fetched curl -s -m 5 http://192.0.2.1:18080/
  claim "stop" cri stop "$port"
  claim "... closes it" is_not curl -s -m 2 http://192.0.2.1:18080/
  claim "remove" cri remove "$port"
  ip link del to-outside
fi
if has_chained bandwidth; then
  claim "a pod with a bandwidth" run slow slow --annotation kubernetes.io/ingress-bandwidth=8M --annotation kubernetes.io/egress-bandwidth=8M
  claim "... is limited" sh -c 'tc qdisc show | grep -q "tbf .*rate 8Mbit"'
  claim "... stop" cri stop "$slow"
  claim "... remove" cri remove "$slow"
fi

claim "stop" cri stop "$two"
claim "... the pod is not ready" state_is "$two" NOTREADY
claim "... its address is free" sh -c '[ -z "$(grep -rl "^'"$two"'" /var/lib/cni/networks/pods)" ]'
claim "stop again" cri stop "$two"
claim "remove" cri remove "$two"
claim "remove again" cri remove "$two"
claim "the first is as it was" ping -c 1 -W 5 "$one4"

if [ -n "$LONG" ]; then claim "50 pods, 8 at a time" cri many 50 8; else claim "8 pods, 4 at a time" cri many 8 4; fi

rm /etc/cni/net.d/pods.conflist
lab_until 30 "NetworkReady=false" network_is false
claim "without the network's file the runtime is not ready any more" network_is false
runtime_network pods cni-pods 10.83.0.0/24 fd00:83::/64
lab_until 30 "NetworkReady" network_is true
claim "stop and remove the first" cri stop "$one"
claim "... remove" cri remove "$one"
claim "nothing is left" nothing_left

# ---- ctr
claim "ctr run --cni" ctr run -d --cni localhost/box:1 plain
plain() { ctr tasks exec --exec-id "x$RANDOM" plain "$@"; }
plain4=$(plain ip -4 addr show eth0 | sed -nE 's/.*inet ([0-9.]+).*/\1/p')
claim "... has an interface, $plain4" ping -c 1 -W 5 "$plain4"
ended() { ! ctr tasks ls | grep -q 'plain .*RUNNING'; }
claim "... kill" ctr tasks kill -s KILL plain
lab_until 30 "the end of the container" ended
claim "... remove" ctr tasks rm plain
claim "... and its container" ctr containers rm plain
# With -d nobody calls DEL: ctr does that only for what it waits for.
claim "ctr run --cni, waited for" ctr run --rm --cni localhost/box:1 waited ip addr show eth0
