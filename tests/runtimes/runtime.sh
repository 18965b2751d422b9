# What the scripts of the runtimes share: a node in namespaces that end with the script (tests/lab/lab.sh), on which nothing but
# Sandwire can attach a container.
#
#     . tests/runtimes/runtime.sh
#     runtime_enter "$@"                    # runs this script again inside; the outer one waits and takes the control groups away
#     runtime_network NAME BRIDGE SUBNET [SUBNET6]
#
# LONG=1            more of the same: what a short run does once
# RUNTIMES_CHAIN    plugins after the bridge, a list in JSON
# RUNTIME_CNI       the networks' cniVersion, 1.0.0 when a script says nothing else
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../lab/lab.sh"

# What a node's default network is.
usual='[{"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}, {"type": "firewall"},
  {"type": "bandwidth", "capabilities": {"bandwidth": true}},
  {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "txQLen": 777}]'
CHAIN=${RUNTIMES_CHAIN:-$usual}
LONG=${LONG:-}
TOOLS=${SANDWIRE_TOOLS:-/var/tmp/sandwire-tools}

# claim TEXT COMMAND...: in this shell, so that a function may set variables.
claim() {
  local text=$1
  shift
  if "$@" >"$LAB_RUN/said" 2>&1; then
    echo "ok   $text"
  else
    printf 'FAIL %s\n     %s\n%s\n' "$text" "$*" "$(cat "$LAB_RUN/said")"
    exit 1
  fi
}
# told TEXT COMMAND...: the same, and the line of figures that it prints last.
told() {
  claim "$@"
  sed -n '$s/^/     /p' "$LAB_RUN/said"
}
is_not() { ! "$@"; }
# is TEXT COMMAND...: that is what it prints. refused TEXT COMMAND...: it fails and says so.
is() { [ "$("${@:2}")" = "$1" ]; }
refused() { local said; ! said=$("${@:2}" 2>&1) && { echo "$said" && grep -qF -- "$1" <<<"$said"; }; }
has_chained() { jq -e --arg type "$1" 'any(.type == $type)' <<<"$CHAIN" >/dev/null; }

# Control groups are the one thing of a runtime that no namespace takes along. So the whole script runs in groups of its own, sees
# nothing above them, and the outer script removes them. Of a hybrid of both versions, which crun refuses, only version 1 is seen.
RUNTIME_GROUP=${RUNTIME_GROUP:-sandwire-$$}
# KIND FOLDER OPTIONS of each hierarchy that is used; others can't be mounted without more privilege.
runtime_hierarchies() {
  awk '
    FILENAME == "/proc/cgroups" { known[$1]; next }
    $3 == "cgroup" {
      n = split($4, options, ","); list = ""
      for (i = 1; i <= n; i++) {
        if (options[i] in known) list = list (list == "" ? "" : ",") options[i]
        if (options[i] ~ /^name=/) list = "none," options[i]
      }
      one = one $3 " " $2 " " list "\n"
    }
    $3 == "cgroup2" { two = two $3 " " $2 " -\n" }
    END { printf "%s", one == "" ? two : one }' /proc/cgroups /proc/self/mounts
}
# In a shell of its own, which with all that it starts is in the groups from then on.
runtime_join() {
  local kind folder options group
  while read -r kind folder options; do
    # In version 2 a group that gives its controllers to others has no processes itself: they start beside those.
    mkdir -p "$folder/$RUNTIME_GROUP/start"
    if [ -e "$folder/$RUNTIME_GROUP/cpuset.cpus" ] && [ "$kind" = cgroup ]; then
      for group in "$RUNTIME_GROUP" "$RUNTIME_GROUP/start"; do
        cat "$folder/cpuset.cpus" >"$folder/$group/cpuset.cpus"
        cat "$folder/cpuset.mems" >"$folder/$group/cpuset.mems"
      done
    fi
    echo "$BASHPID" >"$folder/$RUNTIME_GROUP/start/cgroup.procs"
  done < <(runtime_hierarchies)
}
# What is mounted at /sys/fs/cgroup in there: HIERARCHIES as runtime_hierarchies tells.
runtime_groups() {
  local kind folder options
  mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  while read -r kind folder options; do
    if [ "$kind" = cgroup2 ]; then
      mount -t cgroup2 cgroup2 /sys/fs/cgroup
      mkdir /sys/fs/cgroup/script
      echo $$ >/sys/fs/cgroup/script/cgroup.procs
      sed -E 's/(^| )(.)/\1+\2/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
    else
      mkdir "/sys/fs/cgroup/${folder##*/}"
      mount -t cgroup -o "$options" cgroup "/sys/fs/cgroup/${folder##*/}"
    fi
  done <<<"$1"
}
runtime_leave() {
  local folder group
  while read -r _ folder _; do
    for _ in $(seq 100); do
      [ -d "$folder/$RUNTIME_GROUP" ] || break
      while read -r group; do rmdir "$group" 2>/dev/null || true; done < <(find "$folder/$RUNTIME_GROUP" -depth -type d)
      sleep 0.05
    done
    [ ! -d "$folder/$RUNTIME_GROUP" ] || { echo "left: $folder/$RUNTIME_GROUP" >&2; return 1; }
  done < <(runtime_hierarchies)
}

# runtime_enter ARGS...: returns inside, on a node with Sandwire installed.
runtime_enter() {
  local folder status=0
  if [ "${LAB_INSIDE:-}" != yes ]; then
    [ "$(id -u)" = 0 ] || lab_fail "this makes network namespaces, which needs root: run it with sudo"
    [ -x "$LAB_TREE/target/x86_64-unknown-linux-musl/release/sandwire" ] || lab_fail "build it first: make build"
    [ -n "$(runtime_hierarchies)" ] || lab_fail "no control groups are mounted (/proc/self/mounts); as root: mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    export RUNTIME_GROUP
    (
      runtime_join
      lab_enter "$@"
    ) &
    local inside=$!
    trap 'kill -TERM $inside 2>/dev/null' INT TERM HUP
    wait $inside || status=$?
    wait $inside 2>/dev/null || true
    runtime_leave || status=1
    exit $status
  fi
  if [ -z "${RUNTIME_INSIDE:-}" ]; then
    # The namespace's root is the group that its first process is in.
    while read -r _ folder _; do echo $$ >"$folder/$RUNTIME_GROUP/cgroup.procs"; done < <(runtime_hierarchies)
    RUNTIME_INSIDE=$(runtime_hierarchies)
    export RUNTIME_INSIDE
    exec unshare --cgroup "$BASH" "$0" "$@"
  fi
  lab_enter "$@"
  runtime_groups "$RUNTIME_INSIDE"
  lab_files "$LAB_RUN/files"
  # No native plugin within reach of anything that looks for one.
  rm -rf /usr/lib/cni /usr/libexec/cni
  echo 1 >/proc/sys/net/ipv4/ip_forward
  lab_install >"$LAB_RUN/install" 2>&1 || { cat "$LAB_RUN/install"; exit 1; }
  claim "the plugin directory holds one binary and links to it" only_sandwire
}
only_sandwire() {
  local file
  [ -x /opt/cni/bin/bridge ] || return 1
  for file in /opt/cni/bin/*; do
    [ "$(readlink -f "$file")" = /opt/cni/bin/sandwire ] || { echo "$file is something else"; return 1; }
  done
}

# runtime_network NAME BRIDGE SUBNET [SUBNET6]: a bridge with host-local, then the chain, as NAME in /etc/cni/net.d.
# Where br_netfilter is loaded, a container reaches itself through a host port only with hairpinMode.
runtime_network() {
  jq -n --arg version "${RUNTIME_CNI:-1.0.0}" --arg name "$1" --arg bridge "$2" --arg subnet "$3" --arg subnet6 "${4:-}" \
    --argjson chain "$CHAIN" '
    {cniVersion: $version, name: $name, plugins: ([{type: "bridge", bridge: $bridge, isGateway: true, ipMasq: true, hairpinMode: true, ipam:
      {type: "host-local", ranges: ([[{subnet: $subnet}]] + if $subnet6 == "" then [] else [[{subnet: $subnet6}]] end),
       routes: ([{dst: "0.0.0.0/0"}] + if $subnet6 == "" then [] else [{dst: "::/0"}] end)}}] + $chain)}' \
    >"/etc/cni/net.d/$1.conflist"
}

# runtime_outside: another host, "outside", that has no route to any container. The node is 192.0.2.1 and 2001:db8::1 to it.
runtime_outside() {
  lab_namespace outside
  ip link add to-outside type veth peer name eth0 netns "$(<"$LAB_RUN/outside.pid")"
  ip addr add 192.0.2.1/24 dev to-outside
  ip addr add 2001:db8::1/64 dev to-outside nodad
  ip link set to-outside up
  lab_exec outside sh -c 'ip addr add 192.0.2.2/24 dev eth0 && ip addr add 2001:db8::2/64 dev eth0 nodad && ip link set eth0 up'
}
# claim_port PORT COMMAND...: whoever asks for the page at a host port gets it; COMMAND ADDRESS PORT asks from inside the container.
claim_port() {
  local port=$1
  shift
  claim "... from another host" fetched lab_exec outside curl -s -m 5 --retry 5 --retry-connrefused "http://192.0.2.1:$port/"
  claim "... from there by IPv6" fetched lab_exec outside curl -s -m 5 "http://[2001:db8::1]:$port/"
  claim "... from the node" fetched curl -s -m 5 "http://192.0.2.1:$port/"
  claim "... from the node by 127.0.0.1" fetched curl -s -m 5 "http://127.0.0.1:$port/"
  claim "... from itself (hairpin)" fetched "$@" 192.0.2.1 "$port"
  claim "... from itself by IPv6" fetched "$@" 2001:db8::1 "$port"
}
# fetched COMMAND...: it prints the page that containers serve.
fetched() { [ "$("$@")" = "it works" ]; }
# rate MBITS ADDRESS FROM TO: so fast does TCP get to the address; two network namespaces' paths.
rate() {
  local receiver status=0
  nsenter --net="$4" /usr/bin/python3 "$here/rate.py" receive 5201 "$1" &
  receiver=$!
  nsenter --net="$3" /usr/bin/python3 "$here/rate.py" send "$2" 5201 || status=1
  wait $receiver || status=1
  return $status
}

# runtime_image FILE: an archive of a file system that is busybox and nothing else.
runtime_image() {
  local root=$LAB_RUN/image program
  mkdir -p "$root"/{bin,etc,proc,sys,dev,tmp,run,www}
  echo 'it works' >"$root/www/index.html"
  cp "$(command -v busybox)" "$root/bin/busybox"
  for program in sh sleep ip ping httpd nc cat tail printf echo ls true; do ln -sf busybox "$root/bin/$program"; done
  echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
  echo 'root:x:0:' >"$root/etc/group"
  # page ADDRESS PORT. (The static busybox's own wget crashes: it can't load glibc's ways to look up a name.)
  cat >"$root/bin/page" <<'T'
#!/bin/sh
printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 "$1" "$2" | tail -n 1
T
  # serve: that page, for ever.
  cat >"$root/bin/serve" <<'T'
#!/bin/sh
httpd -h /www -p 8080
exec sleep 1000000
T
  chmod 755 "$root/bin/page" "$root/bin/serve"
  tar -C "$root" -cf "$1" .
}

# nothing_left: no interface, lease, rule, journal entry or kept result of any attachment.
nothing_left() {
  local left
  left=$(
    ip -o link show type veth | grep -v ' to-outside@' || true
    ip -o link show type ifb
    find /var/lib/cni/networks -type f ! -name lock ! -name 'last_reserved_ip.*' 2>/dev/null
    find /var/lib/cni/results -type f 2>/dev/null
    find /run/sandwire/journal -path '*/locks' -prune -o -type f -print 2>/dev/null
    nft list ruleset 2>/dev/null | grep -E 'elements|comment' || true
  )
  [ -z "$left" ] || { echo "$left"; return 1; }
}
