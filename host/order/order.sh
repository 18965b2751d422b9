#!/bin/bash
# Makes host/order/functions and plugins/functions anew: what calls enter, those of bridge with host-local first, in the order of the first time.
# Linker (host/build.sh) and sandwire-componentize (plugins/build.sh) put these functions side by side: of the program's code 1.5 of
# 5.5 MB are used, of the plugins' less, and spread over all of it each window of 64 KB that the kernel maps for a fault would be one
# more fault, 60 and 20 of them for every pod.
#
# To be run when much has changed, or after a new compiler: the names have its hashes in them, and a name that no longer exists
# is passed over, so an old list costs only time. Needs what make build made, and root.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
. "$root/tests/lab/lab.sh"

if [ "${LAB_INSIDE:-}" != yes ]; then
  SANDWIRE_SYMBOLS=yes "$root/host/build.sh"
fi
lab_enter "$@"
lab_files "$LAB_RUN/files"

# Components whose functions are as they were compiled, with their names.
componentize=$root/target/tool/sandwire-componentize
mkdir "$LAB_RUN/plugins"
for component in "$root"/out/plugins/*.wasm; do
  type=$(basename "$component" .wasm)
  module=$root/target/wasm32-unknown-unknown/plugin/sandwire_plugin_${type//-/_}.wasm
  "$componentize" "$module" "$LAB_RUN/plugins/$type.wasm" >/dev/null
  "$componentize" --functions "$module" >"$LAB_RUN/$type.functions"
done
"$root/target/tool/sandwirectl" install --binary "$root/target/x86_64-unknown-linux-musl/release/sandwire" \
  --components "$LAB_RUN/plugins" >/dev/null
active=/var/lib/sandwire/active
compiled() { jq -r .compiled "$active/$1.json"; }
traced=(/opt/cni/bin/sandwire "$active/$(compiled bridge)" "$active/$(compiled host-local)")
ip netns add pod
export CNI_CONTAINERID=pod CNI_IFNAME=eth0 CNI_NETNS=/run/netns/pod CNI_PATH=/opt/cni/bin

# call VERB TYPE CONFIGURATION: its result becomes the next one's prevResult.
call() {
  CNI_COMMAND=$1 python3 "$here/entered.py" "$LAB_RUN/entered" "${traced[@]}" -- "/opt/cni/bin/$2" <<<"$3" >"$LAB_RUN/answer"
}
with_result() { jq -c --slurpfile result "$LAB_RUN/answer" '. + {prevResult: $result[0]}' <<<"$1"; }
ipam='"ipam":{"type":"host-local","ranges":[[{"subnet":"10.90.0.0/24"}],[{"subnet":"fd00:90::/64"}]],"routes":[{"dst":"0.0.0.0/0"}]}'
# At last without a memory image: what it spares all others.
for masquerade in false true without; do
  if [ "$masquerade" = without ]; then
    rm "$active/image"
    masquerade=true
  fi
  config='{"cniVersion":"1.0.0","name":"order","type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":'$masquerade",$ipam}"
  # The first makes the bridge and the directories, as only a node's first pod does.
  for round in first usual; do
    call ADD bridge "$config"
    result=$(with_result "$config")
    [ "$round" = first ] && rm -f "$LAB_RUN/entered.first" && mv "$LAB_RUN/entered" "$LAB_RUN/entered.first"
    call DEL bridge "$result"
  done
done
# The other plugins: what of them and of the program only they enter comes after.
mv "$LAB_RUN/entered" "$LAB_RUN/entered.usual"
"$root/target/tool/sandwirectl" apply >/dev/null
ip link add order0 up type veth peer name order1
other() {
  local config
  config='{"cniVersion":"1.0.0","name":"order","type":"'$1"\",$2}"
  traced=(/opt/cni/bin/sandwire "$active/$(compiled "$1")")
  [ -z "${3:-}" ] || config=$(jq -c --argjson result "$3" '. + {prevResult: $result}' <<<"$config")
  call ADD "$1" "$config"
  [ -n "${3:-}" ] || config=$(with_result "$config")
  call DEL "$1" "$config"
}
others=(macvlan ptp portmap bandwidth firewall tuning loopback)
other macvlan '"master":"order0",'"$ipam"
other ptp '"ipMasq":true,'"$ipam"
call ADD bridge "$config"
result=$(<"$LAB_RUN/answer")
other portmap '"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}' "$result"
other bandwidth '"ingressRate":8000,"ingressBurst":80000,"egressRate":8000,"egressBurst":80000' "$result"
other firewall '"ingressPolicy":"open"' "$result"
other tuning '"mtu":1400,"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}' "$result"
CNI_IFNAME=lo other loopback '"dns":{}'
mv "$LAB_RUN/entered" "$LAB_RUN/entered.others"

# write FILE NAMES: once each.
write() {
  awk '!seen[$0]++' >"$1"
  printf '%s: %d functions\n' "$1" "$(wc -l <"$1")"
}
of() { awk -v file="$1" '$1 == file { print $2 }' "$LAB_RUN"/entered.{usual,first,others}; }
of sandwire | write "$here/functions"
for type in bridge host-local "${others[@]}"; do
  # wasm[0]::function[NUMBER]: of the plugin's own module.
  of "$(compiled "$type")" | sed -n 's/^wasm\[0\]::function\[\([0-9]*\)\].*/\1/p' |
    awk 'NR == FNR { name[$1] = $2; next } $1 in name { print name[$1] }' "$LAB_RUN/$type.functions" -
done | write "$root/plugins/functions"
# cargo does not know that the binary depends on it.
touch "$root/host/sandwire/src/main.rs"
