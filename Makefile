# Every target is one script or cargo call; the scripts say what they do.
.PHONY: build check test test-runtimes soak demo demo-local bench install uninstall clean

build:
	host/toolchain.sh
	host/build.sh
	plugins/build.sh

check:
	tests/check.sh

test:
	tests/run.sh

# Real runtimes, the long form; make test runs the short one.
test-runtimes: build
	LONG=1 tests/runtimes/podman.sh
	LONG=1 tests/runtimes/containerd.sh
	CONTAINERD=2 LONG=1 tests/runtimes/containerd.sh
	LONG=1 tests/runtimes/docker.sh
	LONG=1 tests/runtimes/cnitool.sh

# Hours: all six errnos at each system call, 5,000 stale attachments, 20,000 sequences beside the native plugins, random steps until MODEL_SECONDS (14,400) are over.
soak: build
	SOAK=1 cargo test --locked --profile tool --no-fail-fast -p sandwire-crash
	DIFFERENTIAL_SEQUENCES=20000 cargo test --locked --profile tool --no-fail-fast -p sandwire-differential
	MODEL_SECONDS=$${MODEL_SECONDS:-14400} cargo test --locked --profile tool --no-fail-fast -p sandwire-model

demo: build
	demo/demo.sh

demo-local: build
	demo/demo-local.sh

bench: build
	tests/bench/bench.sh

install: build
	out/sandwirectl install

uninstall:
	out/sandwirectl uninstall

clean:
	cargo clean
	rm -rf out
