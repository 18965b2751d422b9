#!/bin/sh
# Builds plugins as components: plugins/build.sh [TYPE...]      (all of them without arguments)
#
# plugins/TYPE is the package sandwire-plugin-TYPE and becomes out/plugins/TYPE.wasm. What has not changed is not touched:
# a component's digest is pinned in the policy of a node.
set -eu
cd "$(dirname "$0")/.."
target=wasm32-unknown-unknown
modules=${CARGO_TARGET_DIR:-target}/$target/plugin

fail() {
    echo "plugins/build.sh: $*" >&2
    exit 1
}

[ $# -gt 0 ] || set -- $(for manifest in plugins/*/Cargo.toml; do basename "$(dirname "$manifest")"; done)

packages=
for type in "$@"; do
    [ -f "plugins/$type/Cargo.toml" ] || fail "there is no plugin \"$type\" in plugins/"
    # Cases are what says that a plugin does what its reference does; without one nobody can know.
    [ -n "$(find "plugins/$type/cases" -mindepth 2 -maxdepth 2 -name steps -size +0 2>/dev/null)" ] ||
        fail "plugin \"$type\" has no cases: add plugins/$type/cases/NAME/ with config.json and steps (tests/harness/README.md)"
    packages="$packages -p sandwire-plugin-$type"
done

if command -v rustup >/dev/null && ! rustup target list --installed | grep -qx $target; then
    fail "Rust can't compile for $target; run: rustup target add $target"
fi
cargo build --locked --profile plugin --target $target $packages
# The same as in host/build.sh, for the reason given there.
cargo build --locked --profile tool --workspace --bin sandwirectl --bin sandwire-componentize
componentize=${CARGO_TARGET_DIR:-target}/tool/sandwire-componentize

mkdir -p out/plugins
for type in "$@"; do
    module=$modules/sandwire_plugin_$(echo "$type" | tr - _).wasm
    component=out/plugins/$type.wasm
    if [ "$component" -nt "$module" ] && [ "$component" -nt "$componentize" ] && [ "$component" -nt plugins/functions ]; then
        continue
    fi
    # What calls enter stands together (host/order/order.sh).
    "$componentize" "$module" "$component.new" plugins/functions
    if cmp -s "$component.new" "$component"; then
        rm "$component.new"
        touch "$component"
    else
        mv "$component.new" "$component"
    fi
done
