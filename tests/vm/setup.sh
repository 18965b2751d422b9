#!/bin/bash
# Makes ready what `run` boots: QEMU from Debian's packages, Debian's newest kernel unpacked (never installed: nothing of the
# machine's own boot is touched), and an initramfs that puts the machine's own files below a throw-away layer. Does nothing
# when all of it is there; exits with 1 and the line to run when it can't.
#
# SANDWIRE_VM: where the kernel is kept (default /var/tmp/sandwire-vm, 170 MB). Delete that folder to be rid of it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${SANDWIRE_VM:-/var/tmp/sandwire-vm}
export PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$cache"
cache=$(cd "$cache" && pwd -P)

# One at a time; the second finds it done.
exec 9>"$cache/setup.lock"
flock 9

say() { printf 'vm: %s\n' "$*" >&2; }
. "$here/../apt.sh"

# ---- Debian's packages, by the program that each brings
declare -A package_of=(
  [qemu-system-x86_64]=qemu-system-x86 [depmod]=kmod [modprobe]=kmod [cpio]=cpio [/bin/busybox]=busybox-static
  [/usr/bin/python3]=python3 [setpriv]=util-linux [ip]=iproute2
)
missing=()
for program in "${!package_of[@]}"; do
  command -v "$program" >/dev/null || missing+=("${package_of[$program]}")
done
debian_packages "$cache/apt.log" "${missing[@]}"

# ---- Debian's kernel
want=$(cat "$here/setup.sh" "$here/init" | sha256sum | cut -c1-16)
[ "$(cat "$cache/complete" 2>/dev/null)" != "$want" ] || exit 0
newest() { apt-cache depends linux-image-amd64 2>/dev/null | awk '$1 == "Depends:" { print $2; exit }'; }
package=$(newest)
if [ -z "$package" ]; then
  apt-get update -qq || true
  package=$(newest)
fi
[ -n "$package" ] || { say "apt knows no linux-image-amd64; is Debian's archive in /etc/apt/sources.list?"; exit 1; }
version=${package#linux-image-}
say "getting Debian's kernel $version into $cache; once, half a minute"
rm -rf "$cache/complete" "$cache/deb" "$cache/kernel" "$cache/initramfs"
mkdir -p "$cache/deb"
# A list of packages that is older than the archive names files that are gone.
(cd "$cache/deb" && { apt-get download -qq "$package" || { apt-get update -qq && apt-get download -qq "$package"; }; }) \
  >"$cache/apt.log" 2>&1 ||
  { tail -20 "$cache/apt.log" >&2; say "failed (all of it: $cache/apt.log); run: apt-get update && apt-get download $package"; exit 1; }
dpkg -x "$cache/deb/${package}"_*.deb "$cache/kernel"
rm -rf "$cache/deb"
# Since trixie Debian ships modules below /usr.
[ -e "$cache/kernel/lib" ] || ln -s usr/lib "$cache/kernel/lib"
# Four fifths of it drive hardware that is not there.
(cd "$cache/kernel/lib/modules/$version/kernel" &&
  find sound drivers drivers/net -mindepth 1 -maxdepth 1 ! -path drivers/net ! -path drivers/virtio ! -path drivers/uio \
    \( ! -path 'drivers/net/*' -o -name ethernet -o -name wireless -o -name usb \) -exec rm -rf {} +)
depmod -b "$cache/kernel" "$version"
# Uncompressed: under emulation the kernel would take seconds to do that itself, at each boot.
/usr/bin/python3 - "$cache/kernel/boot/vmlinuz-$version" "$cache/vmlinux" <<'PY'
import lzma, sys
image = open(sys.argv[1], "rb").read()
start = image.find(b"\xfd7zXZ\0")
if start < 0:
    sys.exit("vm: Debian's kernel is no longer compressed with xz; teach setup.sh the new way")
open(sys.argv[2], "wb").write(lzma.LZMADecompressor().decompress(image[start:]))
PY

# ---- What runs before the machine's files are there
root=$cache/initramfs
mkdir -p "$root"/{bin,proc,sys,dev,modules,lower,upper,new}
cp /bin/busybox "$root/bin/"
for applet in sh mount insmod mkdir switch_root cat ln poweroff uname; do ln -s busybox "$root/bin/$applet"; done
for module in virtio_pci 9pnet_virtio 9p overlay; do
  modprobe -d "$cache/kernel" -S "$version" --show-depends $module 2>/dev/null | awk '$1 == "insmod" { print $2 }'
done | awk '!seen[$0]++' | while read -r file; do
  cp "$file" "$root/modules/"
  basename "$file" >>"$root/modules/order"
done
[ -s "$root/modules/order" ] || { say "Debian's kernel $version has no 9p module"; exit 1; }
printf '%s\n' "$cache/kernel/lib/modules/$version" >"$root/modules/folder"
install -m 755 "$here/init" "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) >"$cache/initramfs.cpio"
rm -rf "$root"
echo "$want" >"$cache/complete"
say "ready: kernel $version"
