# Every target is one script or cargo call; the scripts say what they do.
.PHONY: build check test soak demo demo-local bench install uninstall clean

build:
	host/build.sh
	plugins/build.sh

check:
	tests/check.sh

test:
	tests/run.sh

# Hours: all six errnos at each system call, 5,000 stale attachments, random steps until MODEL_SECONDS (14,400) are over.
soak: build
	SOAK=1 cargo test --locked --profile tool --no-fail-fast -p sandwire-crash
	MODEL_SECONDS=$${MODEL_SECONDS:-14400} cargo test --locked --profile tool --no-fail-fast -p sandwire-model

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
