#!/bin/bash
# What can be said without running anything: format, lints, licences, sources and known holes of dependencies.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools=${SANDWIRE_TOOLS:-/var/tmp/sandwire-tools}
export PATH=$tools/bin:$PATH

step() { printf '\n== %s\n' "$*"; }

step "format"
cargo fmt --all --check

# What becomes a component is linted for the target that it is built for.
guests=(-p sandwire-plugin)
for manifest in plugins/*/Cargo.toml tests/guests/*/Cargo.toml; do
  [ -e "$manifest" ] && guests+=(-p "$(sed -n 's/^name *= *"\(.*\)"/\1/p' "$manifest" | head -1)")
done
step "lints of the host"
cargo clippy --locked --profile tool --workspace --exclude sandwire-plugin "${guests[@]/#-p/--exclude}" --all-targets -- -D warnings
step "lints of the components"
cargo clippy --locked --profile plugin --target wasm32-unknown-unknown "${guests[@]}" -- -D warnings

step "dependencies"
if ! command -v cargo-deny >/dev/null; then
  echo "installing cargo-deny into $tools; once, some minutes"
  cargo install --quiet --locked cargo-deny --root "$tools" || { echo "failed; run: cargo install --locked cargo-deny" >&2; exit 1; }
fi
cargo deny --locked --log-level error check licenses bans sources
if reason=$(timeout 60 cargo deny --locked --log-level error fetch db 2>&1); then
  cargo deny --locked check --disable-fetch advisories
else
  cat <<T

ADVISORIES WERE NOT CHECKED: RustSec's database can't be fetched from here
  $(printf '%s\n' "$reason" | tail -1 | cut -c1-200)
What stands in for them is the list of versions with known holes in deny.toml, which was checked. On a machine with
access to github.com, run:  cargo deny check advisories
T
fi
