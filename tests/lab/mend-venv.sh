#!/bin/bash
# Mends three faults of networking-bagpipe 15 to 21 (module linux_vxlan) without which no endpoint can be detached.
# The last release with the Linux EVPN driver has them all; upstream removed the driver instead.
# usage: mend-venv.sh VENV
set -euo pipefail
venv=$1
module=$(echo "$venv"/lib/python3*/site-packages/networking_bagpipe/bagpipe_bgp/vpn/evpn/linux_vxlan.py)

# swap OLD NEW: replaces the text, and insists that the result is there, so that another release is noticed.
swap() {
  python3 - "$module" "$1" "$2" <<'P'
import sys
path, old, new = sys.argv[1:]
text = open(path).read()
if old in text:
    open(path, "w").write(text.replace(old, new))
elif new not in text:
    sys.exit(f"{path}: neither {old!r} nor {new!r} is in it: is this networking-bagpipe 21.0.0?")
P
}

# pyroute2's NDB objects have no attribute .ifname: every detach answers 500.
swap "port.ifname == ifname" "port['ifname'] == ifname"
# A double negation: the VXLAN device is never removed, so the next attach with that instance id answers 500.
swap "if not VXLAN_INTERFACE_PREFIX not in self.vxlan_if_name" "if VXLAN_INTERFACE_PREFIX not in self.vxlan_if_name"
# With debug = True a command without its first word is run: every attach answers 500.
swap '"fdb show br %s"' '"bridge fdb show br %s"'
find "$(dirname "$module")" -name 'linux_vxlan*.pyc' -delete
