# Every target is one script or cargo call; the scripts say what they do.
.PHONY: build check test test-crash demo demo-local bench install uninstall clean

build:
	host/build.sh
	plugins/build.sh

check:
	tests/check.sh

test:
	tests/run.sh

test-crash: build
	cargo test --locked --profile tool --no-fail-fast -p sandwire-crash

demo: build
	demo/demo.sh

demo-local: build
	demo/demo-local.sh

bench: build
	tests/bench/bench.sh

install: build
	target/tool/sandwirectl install --binary target/x86_64-unknown-linux-musl/release/sandwire --components out/plugins

uninstall:
	target/tool/sandwirectl uninstall

clean:
	cargo clean
	rm -rf out
