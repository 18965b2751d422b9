#!/bin/bash
# Builds the CNI binary and the tool: host/build.sh. What the CNI binary must not be or contain is checked here, because
# nobody would see it: it would work, only with another start-up time and another surface.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=x86_64-unknown-linux-musl
out=${CARGO_TARGET_DIR:-target}
binary=$out/$target/release/sandwire

fail() {
  printf 'host/build.sh: %s\n' "$*" >&2
  exit 1
}

# musl: glibc's start-up asks the processor for its caches (init_cacheinfo, up to a hundred cpuid), and in a virtual machine
# each question is a trap of 1 to 5 us: half a millisecond before main.
# sha2_backend: the same traps, 14 us of them, to find out whether the processor has instructions for what is hashed here: names. Of the
# two forms in software the small one: the other is 26 KB of code to be fetched for a dozen blocks.
# gcc: wasmtime has one C file, which calls nothing; cc-rs would look for a musl-gcc.
# crt-static needs an explicit --target: without one it would apply to build scripts and procedural macros too.
# The compiler's own lld: it takes the list of what a call uses (host/order), and packs the 7,400 relocations of a static-pie
# into 3 KB instead of 180. The entry: host/sandwire/src/start.rs. SANDWIRE_SYMBOLS=yes keeps the symbols, for host/order/order.sh.
lld=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/gcc-ld
[ -x "$lld/ld.lld" ] || fail "this Rust has no lld of its own ($lld/ld.lld); install Rust 1.95 or newer with rustup"
link=(-C "link-arg=-B$lld" -C link-arg=-fuse-ld=lld -C link-arg=-Wl,-z,pack-relative-relocs
  -C "link-arg=-Wl,--symbol-ordering-file=$PWD/host/order/functions" -C link-arg=-Wl,--no-warn-symbol-ordering
  -C link-arg=-Wl,-e,sandwire_start -C link-arg=-Wl,--build-id=sha1)
# The map says afterwards which names of the list there were. It stays with the binary: one without the other is none.
map=$(realpath -m "$binary.map")
link+=(-C "link-arg=-Wl,-Map=$map" -C link-arg=-Wl,--no-demangle)
[ "${SANDWIRE_SYMBOLS:-}" = yes ] && link+=(-C strip=none)
mkdir -p "$(dirname "$map")"
CC_x86_64_unknown_linux_musl=gcc RUSTFLAGS="-C target-feature=+crt-static --cfg sha2_backend=\"soft\" --cfg sha2_backend_soft=\"compact\"" \
  cargo rustc --locked --release --target $target -p sandwire -- "${link[@]}"
# --workspace: with the features that the tests want too, or cargo would build wasmtime once more for them.
cargo build --locked --profile tool --workspace --bin sandwirectl --bin sandwire-componentize

# lld only warns of an entry that it does not find, and makes it 0.
! readelf -hW "$binary" | grep -qE 'Entry point address: +0x0$' || fail "$binary has no entry: sandwire_start is missing"
[ "$(readelf -hW "$binary" | awk '$1 == "Type:" { print $2 }')" = DYN ] || fail "$binary is not position-independent"
readelf -nW "$binary" | grep -q 'Build ID: [0-9a-f]\{40\}' || fail "$binary does not say which build it is (a memory image is of one)"
! readelf -lW "$binary" | grep -q INTERP || fail "$binary wants a dynamic linker: it is not static"
crates=$(cargo tree --locked --target $target -p sandwire -e normal,no-proc-macro --prefix none)
! grep -E '^(cranelift-(codegen|frontend|native)|wasmtime-internal-(cranelift|winch)|regalloc2) ' <<<"$crates" ||
  fail "the CNI binary must contain no compiler"
# Whose start asks the processor what it can (host/memchr).
grep -qE '^memchr .*host/memchr\)' <<<"$crates" ||
  fail "the CNI binary has another memchr than host/memchr: is [patch.crates-io] in Cargo.toml without effect?"
! grep -aqE 'cranelift_codegen|cranelift-codegen|regalloc2' "$binary" || fail "$binary has code of a compiler in it"
# No mistake: what is built works, with up to a megabyte more to map for every pod. One large function out of its place is enough.
if [ -f "$map" ]; then
  read -r known listed < <(awk 'NR == FNR { listed[$1]; next } $NF in listed && !seen[$NF]++ { known++ }
    END { print known + 0, length(listed) }' host/order/functions "$map")
  [ "$known" -eq "$listed" ] ||
    printf 'host/build.sh: only %d of the %d functions in host/order/functions are there; run host/order/order.sh\n' \
      "$known" "$listed" >&2
fi
# The release as install and try find it: out/sandwirectl, with all that belongs to it beside.
mkdir -p out
for file in "$binary" "$out/tool/sandwirectl" "$out/tool/sandwire-componentize"; do
  ln -f "$file" out/ 2>/dev/null || cp "$file" out/
done
printf '%s: %d bytes, static-pie, no compiler inside\n' "$binary" "$(stat -c %s "$binary")"
