#!/bin/bash
# Installs what the build needs beside Rust: a linker and readelf from Debian, Rust's targets for the CNI binary and for
# components. Does nothing when all of it is there; exits with 1 and the line to run when it can't.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
say() { printf 'toolchain: %s\n' "$*" >&2; }
. "$here/../tests/apt.sh"

missing=()
command -v gcc >/dev/null || missing+=(gcc)
command -v readelf >/dev/null || missing+=(binutils)
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
mkdir -p "$here/../out"
debian_packages "$here/../out/apt.log" "${missing[@]}"

command -v cargo >/dev/null || { say "there is no cargo; install Rust 1.95 or newer with rustup, https://rustup.rs"; exit 1; }
if command -v rustup >/dev/null; then
  for target in x86_64-unknown-linux-musl wasm32-unknown-unknown; do
    rustup target list --installed | grep -qx $target || rustup target add $target
  done
fi
