#!/bin/bash
# Makes host/order/functions anew: what ADD and DEL of bridge with host-local call, in the order of the first call. The linker
# puts these functions side by side (host/build.sh): 1.5 of 5.5 MB are used, and spread over all of it each window of
# 64 KB that the kernel maps for a fault would be one more fault, 60 of them for every pod.
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
lab_install >/dev/null
binary=$LAB_TREE/target/x86_64-unknown-linux-musl/release/sandwire
ip netns add pod
export CNI_CONTAINERID=pod CNI_IFNAME=eth0 CNI_NETNS=/run/netns/pod CNI_PATH=/opt/cni/bin

# call VERB CONFIGURATION: its result becomes the next one's prevResult.
call() {
  CNI_COMMAND=$1 python3 "$here/entered.py" "$binary" "$LAB_RUN/entered" /opt/cni/bin/bridge <<<"$2" >"$LAB_RUN/answer"
}
# At last without a memory image: what it spares all others.
for masquerade in false true without; do
  if [ "$masquerade" = without ]; then
    rm /var/lib/sandwire/active/image
    masquerade=true
  fi
  config='{"cniVersion":"1.0.0","name":"order","type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":'$masquerade',
    "ipam":{"type":"host-local","ranges":[[{"subnet":"10.90.0.0/24"}],[{"subnet":"fd00:90::/64"}]],"routes":[{"dst":"0.0.0.0/0"}]}}'
  # The first makes the bridge and the directories, as only a node's first pod does.
  for round in first usual; do
    call ADD "$config"
    result=$(jq -c --slurpfile result "$LAB_RUN/answer" '. + {prevResult: $result[0]}' <<<"$config")
    [ "$round" = first ] && rm -f "$LAB_RUN/entered.first" && mv "$LAB_RUN/entered" "$LAB_RUN/entered.first"
    call DEL "$result"
  done
done
awk '!seen[$0]++' "$LAB_RUN/entered" "$LAB_RUN/entered.first" >"$here/functions"
# cargo does not know that the binary depends on it.
touch "$root/host/sandwire/src/main.rs"
printf '%s: %d functions\n' "$here/functions" "$(wc -l <"$here/functions")"
