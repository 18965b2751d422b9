# Sourced by the scripts that install what tests run. Wants a function `say`.

# Two scripts want it.
# shellcheck disable=SC2034
cnitool=github.com/containernetworking/cni/cnitool@v1.3.0

# go_programs FOLDER PACKAGE@VERSION...: these programs, of one module, in FOLDER; all of them or none. Once: what is there stays.
go_programs() {
  local folder=$1 settings lock try
  shift
  mkdir -p "$folder"
  # One at a time; the second finds it done. A lock of its own, because a build takes minutes.
  exec {lock}>"$folder.lock"
  flock $lock
  if ! go_programs_are "$folder" "$@"; then
    command -v go >/dev/null || { say "there is no go; install Go 1.25 or newer, https://go.dev/dl"; exit 1; }
    # Without cgo nothing of the machine's C is needed.
    settings=(CGO_ENABLED=0 GOFLAGS=-mod=mod GOTOOLCHAIN=local)
    say "installing $* with $(go version | cut -d' ' -f3), once"
    rm -rf "$folder.new"
    mkdir "$folder.new"
    # A hundred modules are fetched: one that failed is asked for again, and what is there already is not.
    for try in 1 2 3; do
      env "${settings[@]}" GOBIN="$folder.new" nice go install "$@" && break
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
