# Sourced by the scripts that install what tests run. Wants a function `say`.

# Two scripts want it.
# shellcheck disable=SC2034
cnitool=github.com/containernetworking/cni/cnitool@v1.3.0

# go_command: where a Go of 1.25 or newer is. One that is older (Debian 12 has 1.19) fetches it as a module, whose checksum Go's
# checksum database has.
go_command() {
  local have newer=golang.org/toolchain@v0.0.1-go1.25.4.linux-amd64 dir
  command -v go >/dev/null || { say "there is no go; install Go 1.25 or newer, https://go.dev/dl"; exit 1; }
  have=$(go env GOVERSION)
  have=${have#go1.}
  if [ "${have%%[!0-9]*}" -ge 25 ]; then
    command -v go
    return
  fi
  say "go1.$have is too old; it fetches $newer"
  dir=$(cd / && GOFLAGS=-mod=mod go mod download -json $newer | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
  [ -n "$dir" ] || { say "it could not; install Go 1.25 or newer, https://go.dev/dl"; exit 1; }
  # A module's files are never executable.
  chmod +x "$dir"/bin/* "$dir"/pkg/tool/*/*
  printf '%s\n' "$dir/bin/go"
}

# go_programs FOLDER PACKAGE@VERSION...: these programs, of one module, in FOLDER; all of them or none. Once: what is there stays.
go_programs() {
  local folder=$1 settings lock try go
  shift
  mkdir -p "$folder"
  # One at a time; the second finds it done. A lock of its own, because a build takes minutes.
  exec {lock}>"$folder.lock"
  flock $lock
  if ! go_programs_are "$folder" "$@"; then
    go=$(go_command) || exit 1
    # Without cgo nothing of the machine's C is needed.
    settings=(CGO_ENABLED=0 GOFLAGS=-mod=mod GOTOOLCHAIN=local)
    say "installing $* with $("$go" version | cut -d' ' -f3), once"
    rm -rf "$folder.new"
    mkdir "$folder.new"
    # A hundred modules are fetched: one that failed is asked for again, and what is there already is not.
    for try in 1 2 3; do
      env "${settings[@]}" GOBIN="$folder.new" nice "$go" install "$@" && break
      [ $try != 3 ] || { say "failed; run (Go 1.25 or newer): ${settings[*]} GOBIN=$folder go install $*"; exit 1; }
      sleep $((try * 5))
    done
    mv -f "$folder.new"/* "$folder/"
    rmdir "$folder.new"
  fi
  exec {lock}>&-
}

go_programs_are() {
  local folder=$1 program
  shift
  for program in "$@"; do
    program=${program%@*}
    [ -x "$folder/${program##*/}" ] || return 1
  done
}
