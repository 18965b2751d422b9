#!/bin/bash
# containerd on a plugin directory that holds nothing but Sandwire, by `ctr run --cni` and by the CRI as a kubelet drives it
# (cri.py): Debian's 1.6 by tests/runtimes/containerd.sh, version 2 by CONTAINERD=2 tests/runtimes/containerd.sh
# Prints a line for each claim and exits with 1 at the first that is not so. LONG=1: 50 pods, 8 at a time.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
case ${CONTAINERD:-1} in
  1) kind=containerd ;;
  2) kind=containerd2 ;;
  *) echo "CONTAINERD is 1 or 2" >&2; exit 1 ;;
esac
[ "${LAB_INSIDE:-}" = yes ] || "$here/install.sh" $kind
. "$here/runtime.sh"
runtime_enter "$@"

socket=/run/containerd/containerd.sock
mkdir -p "$LAB_RUN/containerd" /run/containerd
# The same settings, under the names that each version has for them.
if [ $kind = containerd ]; then
  version=2
  images='"io.containerd.grpc.v1.cri"'
  runtime=$images
  image='sandbox_image = "localhost/box:1"'
  bin_dir='bin_dir = "/opt/cni/bin"'
else
  export PATH=$TOOLS/containerd-2:$PATH
  version=3
  images='"io.containerd.cri.v1.images".pinned_images'
  runtime='"io.containerd.cri.v1.runtime"'
  image='sandbox = "localhost/box:1"'
  bin_dir='bin_dirs = ["/opt/cni/bin"]'
  # 1.6 refuses results of 1.1.0; this takes them, and asks a network of 1.1.0 for its STATUS.
  RUNTIME_CNI=1.1.0
fi
{
  cat <<T
version = $version
root = "$LAB_RUN/containerd/root"
state = "$LAB_RUN/containerd/state"
oom_score = 0
[grpc]
address = "$socket"
[plugins.$images]
$image
T
  [ "$images" = "$runtime" ] || echo "[plugins.$runtime]"
  cat <<T
disable_apparmor = true
restrict_oom_score_adj = true
[plugins.$runtime.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.$runtime.cni]
$bin_dir
conf_dir = "/etc/cni/net.d"
T
} >"$LAB_RUN/containerd.toml"
cri() { /usr/bin/python3 "$here/cri.py" "$socket" "$@"; }
# It would say at each call that version 1 of control groups will go one day.
export CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1
ctr() { command ctr --address "$socket" "$@"; }
# in_pod ID COMMAND...: in a pod's own (sandbox) container.
in_pod() { local pod=$1; shift; ctr -n k8s.io tasks exec --exec-id "x$RANDOM$RANDOM" "$pod" "$@"; }
network_is() { cri ready | jq -e --argjson ready "$1" '.NetworkReady.status == $ready'; }
# not_ready TEXT: and that is what the network's condition says.
not_ready() { cri ready | jq -e --arg text "$1" '.NetworkReady | ., (.status == false and (.message | contains($text)))'; }
address() { cri status "$1" | jq -er ".ips[$2]"; }
state_is() { [ "$(cri status "$1" | jq -r .state)" = "$2" ]; }
# run NAME VARIABLE [OPTIONS]: a pod, its id in the variable.
run() {
  local -n id=$2
  id=$(cri run "$1" "${@:3}") && [ -n "$id" ]
}
netns_of() { echo "/proc/$(ctr -n k8s.io tasks ls | awk -v pod="$1" '$1 == pod { print $2 }')/ns/net"; }

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
name="containerd $(containerd --version | cut -d" " -f3)"
for namespace in default k8s.io; do claim "$name takes an image ($namespace)" ctr -n $namespace images import "$LAB_RUN/box.tar"; done

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
  runtime_outside
  claim_port 18080 in_pod "$port" page
  claim "stop" cri stop "$port"
  claim "... closes it" is_not curl -s -m 2 http://192.0.2.1:18080/
  claim "remove" cri remove "$port"
  ip link del to-outside
fi
if has_chained bandwidth; then
  claim "a pod with a bandwidth" run slow slow --annotation kubernetes.io/ingress-bandwidth=20M --annotation kubernetes.io/egress-bandwidth=10M
  slow_netns=$(netns_of "$slow")
  told "... that limits what it gets" rate 20 "$(address "$slow" 0)" /proc/self/ns/net "$slow_netns"
  told "... and what it sends" rate 10 10.83.0.1 "$slow_netns" /proc/self/ns/net
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

if [ -n "$LONG" ]; then told "50 pods, 8 at a time" cri many 50 8; else told "8 pods, 4 at a time" cri many 8 4; fi

rm /etc/cni/net.d/pods.conflist
lab_until 30 "NetworkReady=false" network_is false
claim "without the network's file the runtime is not ready any more" network_is false
runtime_network pods cni-pods 10.83.0.0/24 fd00:83::/64
lab_until 30 "NetworkReady" network_is true
claim "stop the first" cri stop "$one"
claim "... remove" cri remove "$one"
claim "nothing is left" nothing_left

# ---- a network that can't attach anybody: its only address is taken, then its bridge's name
rm /etc/cni/net.d/pods.conflist
lab_until 30 "NetworkReady=false" network_is false
runtime_network small cni-small 10.86.0.0/30
lab_until 30 "NetworkReady" network_is true
full="no IP addresses available in range set: 10.86.0.1-10.86.0.2"
claim "a pod takes the only address" run last last
if [ $kind = containerd2 ]; then claim "... and the network is not ready, with what STATUS says" not_ready "$full"; fi
claim "another one fails with that" refused "$full" cri run late
claim "stop" cri stop "$last"
claim "... remove" cri remove "$last"
claim "the network is ready" network_is true
if [ $kind = containerd2 ]; then
  ip link del cni-small
  ip link add cni-small type ifb
  claim "another device has the bridge's name: not ready, with what STATUS says" not_ready '"cni-small" already exists but is not a bridge'
  ip link del cni-small
  claim "... without it, ready" network_is true
fi
claim "nothing is left" nothing_left
rm /etc/cni/net.d/small.conflist
runtime_network pods cni-pods 10.83.0.0/24 fd00:83::/64
lab_until 30 "NetworkReady" network_is true

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
