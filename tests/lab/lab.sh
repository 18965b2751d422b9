# A network of nodes with the real BGP daemons, on one machine, in namespaces that end with the script that sources this.
#
#     . tests/lab/lab.sh
#     lab_enter "$@"          # runs this script again in mount, network and process namespaces of its own
#     lab_up 2                # switch, route reflector, two nodes with one bagpipe-bgp each; returns when BGP is up
#     node_exec 1 ip link     # in node 1: its network, its files
#     pod_new 1 blue          # a pod's namespace, /run/netns/blue of node 1
#     pod_exec 1 blue ip addr
#
# Nothing of it has a name on the machine: no entry in `ip netns`, no link, no file outside tmpfs. When the first process
# of the process namespace ends, the kernel kills every other one and drops the mounts and networks with it, so that there
# is nothing that a trap could forget, even when all of this is killed with SIGKILL (pid_namespaces(7), PR_SET_PDEATHSIG).
#
#   rr     192.0.2.254  gobgpd, route reflector, waits for the nodes to call
#   node N 192.0.2.N    bagpipe-bgp: REST on 127.0.0.1:8082 of the node, BGP to rr

LAB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAB_CACHE=${SANDWIRE_LAB:-/var/tmp/sandwire-lab}
LAB_RUN=/run/lab          # of the lab's own mount namespace
LAB_AS=64512
LAB_RR=192.0.2.254
export PATH=$LAB/shim:$LAB_CACHE/venv/bin:/usr/sbin:/sbin:$PATH

lab_fail() {
  printf 'lab: %s\n' "$*" >&2
  exit 1
}

# lab_enter ARGS...: returns in the copy of the script that is inside; the outer one waits, and ends with its status.
lab_enter() {
  if [ "${LAB_INSIDE:-}" = yes ] && [ $$ = 1 ]; then
    mount --make-rprivate /
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /run/netns "$LAB_RUN/tmp"
    export TMPDIR=$LAB_RUN/tmp
    # brctl and pyroute2 read /sys/class/net, which shows the network that sysfs was mounted in.
    mount -t sysfs sysfs /sys
    ip link set lo up
    # The first process of a namespace ignores signals without a handler.
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    return 0
  fi
  [ "$(id -u)" = 0 ] || lab_fail "this makes network namespaces, which needs root: run it with sudo"
  LAB_INSIDE=yes setpriv --pdeathsig KILL \
    unshare --mount --net --ipc --uts --pid --fork --kill-child=KILL --mount-proc "$BASH" "$0" "$@" &
  local inside=$! status=0
  # SIGKILL reaches the inner first process through unshare --kill-child, and the kernel does the rest.
  trap 'kill -KILL $inside 2>/dev/null; wait $inside 2>/dev/null || true; exit 130' INT
  trap 'kill -KILL $inside 2>/dev/null; wait $inside 2>/dev/null || true; exit 143' TERM HUP
  wait $inside || status=$?
  exit $status
}

# lab_namespace NAME: a process that holds a network and a mount namespace; $LAB_RUN/NAME.pid has its number.
lab_namespace() {
  unshare --mount --net bash -c 'mount --make-rprivate / && mount -t sysfs sysfs /sys && ip link set lo up && echo ready && exec sleep infinity' \
    >"$LAB_RUN/$1.ready" 2>"$LAB_RUN/$1.log" &
  echo $! >"$LAB_RUN/$1.pid"
  lab_until 60 "namespaces of $1" grep -q ready "$LAB_RUN/$1.ready"
}

# lab_until SECONDS WHAT COMMAND...: until the command succeeds; else ends everything with a sentence.
lab_until() {
  local seconds=$1 what=$2 end
  shift 2
  end=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || lab_fail "$what: not there after $seconds s ($*)"
    sleep 0.05
  done
}

lab_exec() {
  local name=$1
  shift
  nsenter --target "$(<"$LAB_RUN/$name.pid")" --mount --net -- "$@"
}

# lab_start NAMESPACE NAME LOG COMMAND...: a daemon; $LAB_RUN/NAME.pid has its number.
lab_start() {
  local namespace=$1 name=$2 log=$3
  shift 3
  (exec nsenter --target "$(<"$LAB_RUN/$namespace.pid")" --mount --net -- "$@") >"$log" 2>&1 </dev/null &
  echo $! >"$LAB_RUN/$name.pid"
}

rr_exec() { lab_exec rr "$@"; }
node_exec() { lab_exec "node$1" "${@:2}"; }

# pod_new NODE NAME / pod_gone NODE NAME: a pod's network namespace, as a runtime makes it. / takes it away.
pod_new() { node_exec "$1" sh -c 'ip netns add "$1" && ip -n "$1" link set lo up' - "$2"; }
pod_gone() { node_exec "$1" ip netns del "$2"; }
pod_exec() { node_exec "$1" ip netns exec "${@:2}"; }

# gobgp_routes: the EVPN routes of the reflector, one a line, without the table's padding.
gobgp_routes() { rr_exec gobgp global rib -a evpn 2>/dev/null | awk '/^\*/ { $1 = ""; sub(/^ /, ""); print }'; }

# looking_glass NODE PATH: what the node's agent tells, as JSON.
looking_glass() { node_exec "$1" curl -sf -m 10 "http://127.0.0.1:8082/looking-glass/$2"; }

# sandwire_ctl NODE ARGS...: this build's sandwirectl on a node. lab_install [NODE]: this build, on a node or right here.
LAB_TREE=$(cd "$LAB/../.." && pwd)
sandwire_ctl() { node_exec "$1" "$LAB_TREE/target/tool/sandwirectl" "${@:2}"; }
lab_install() {
  local ctl=("$LAB_TREE/target/tool/sandwirectl")
  [ $# = 0 ] || ctl=(sandwire_ctl "$1")
  "${ctl[@]}" install --binary "$LAB_TREE/target/x86_64-unknown-linux-musl/release/sandwire" --components "$LAB_TREE/out/plugins"
}

# ---- the pieces

lab_switch() {
  ip link add br0 type bridge
  ip link set br0 up
}

# lab_cable NAME ADDRESS: eth0 of a namespace, plugged into the switch.
lab_cable() {
  ip link add "v-$1" type veth peer name eth0 netns "$(<"$LAB_RUN/$1.pid")"
  ip link set "v-$1" master br0 up
  lab_exec "$1" ip addr add "$2/24" dev eth0
  lab_exec "$1" ip link set eth0 up
}

# lab_reflector NODES
lab_reflector() {
  local n family conf=$LAB_RUN/gobgpd.toml
  lab_namespace rr
  lab_cable rr $LAB_RR
  {
    printf '[global.config]\n  as = %s\n  router-id = "%s"\n' $LAB_AS $LAB_RR
    for n in $(seq "$1"); do
      cat <<T
[[neighbors]]
  [neighbors.config]
    neighbor-address = "192.0.2.$n"
    peer-as = $LAB_AS
  [neighbors.transport.config]
    passive-mode = true
  [neighbors.route-reflector.config]
    route-reflector-client = true
    route-reflector-cluster-id = "$LAB_RR"
T
      for family in l2vpn-evpn l3vpn-ipv4-unicast l3vpn-ipv4-flowspec rtc; do
        printf '  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = "%s"\n' $family
      done
    done
  } >"$conf"
  lab_start rr gobgpd "$LAB_RUN/gobgpd.log" gobgpd -f "$conf" --api-hosts 127.0.0.1:50051
  # An agent that is refused tries again only after ten seconds.
  lab_until 60 "gobgpd ($LAB_RUN/gobgpd.log)" rr_exec gobgp global
}

# lab_files LAYER: lays the folders where a node keeps its things over the machine's, for this mount namespace only. Nothing
# of the machine's own is seen there and nothing reaches it.
lab_files() {
  local layer=$1 folder
  mkdir -p "$layer"
  mount -t tmpfs tmpfs "$layer"
  for folder in etc opt usr/lib var/lib; do
    mkdir -p "$layer/$folder/new" "$layer/$folder/work"
    mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$layer/$folder/new,workdir=$layer/$folder/work" "/$folder"
  done
  rm -rf /etc/cni /etc/sandwire /opt/cni /usr/lib/sandwire /var/lib/cni /var/lib/sandwire
  mkdir -p /etc/cni/net.d /opt/cni/bin /var/lib/cni /run/sandwire
  mount -t tmpfs tmpfs /run/netns
  mount -t tmpfs -o mode=700 tmpfs /run/sandwire
}

# lab_node N: namespaces, cable, files.
lab_node() {
  lab_namespace "node$1"
  lab_cable "node$1" "192.0.2.$1"
  node_exec "$1" "$BASH" -euc '. "$1" && lab_files "$2"' - "$LAB/lab.sh" "$LAB_RUN/node$1.files"
}

# agent_start N / agent_stop N [SIGNAL]: bagpipe-bgp of a node. Started is not yet connected: agent_ready waits for that.
agent_start() {
  local state=$LAB_RUN/agent$1
  mkdir -p "$state/lock"
  # An empty root_helper and a helper_command: the agent is root already, and would run sudo.
  cat >"$state/bgp.conf" <<T
[DEFAULT]
debug = False
state_path = $state
[oslo_concurrency]
lock_path = $state/lock
[BGP]
local_address = 192.0.2.$1
peers = $LAB_RR
my_as = $LAB_AS
enable_rtc = True
[COMMON]
root_helper =
[privsep]
helper_command = $LAB_CACHE/venv/bin/privsep-helper --config-file $state/bgp.conf
[API]
host = 127.0.0.1
port = 8082
[DATAPLANE_DRIVER_IPVPN]
dataplane_driver = dummy
[DATAPLANE_DRIVER_EVPN]
dataplane_driver = linux
vxlan_dst_port = 4789
T
  lab_start "node$1" "agent$1" "$state/log" bagpipe-bgp --config-file "$state/bgp.conf"
}

agent_stop() {
  local pid
  pid=$(<"$LAB_RUN/agent$1.pid")
  kill "-${2:-TERM}" "$pid"
  wait "$pid" 2>/dev/null || true
}

agent_connected() { [ "$(looking_glass "$1" summary | jq .BGP_established_peers)" = 1 ]; }
# Two seconds on an idle machine; a loaded one is no reason to fail.
agent_ready() { lab_until 240 "BGP session of node $1 ($LAB_RUN/agent$1/log)" agent_connected "$1"; }

# lab_up NODES
lab_up() {
  local n
  [ -e "$LAB_CACHE/venv/complete" ] || lab_fail "run $LAB/install.sh first"
  lab_switch
  lab_reflector "$1"
  for n in $(seq "$1"); do
    lab_node "$n"
    agent_start "$n"
  done
  for n in $(seq "$1"); do agent_ready "$n"; done
}
