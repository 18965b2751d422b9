# How the demos talk: headings, commands with what they print, and claims that are checked. Colours on a terminal only.

if [ -t 1 ]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' blue=$'\e[34m' plain=$'\e[0m'
else
  bold='' dim='' green='' red='' blue='' plain=''
fi

# title TEXT / step TEXT: a heading, numbered / say TEXT...: a sentence.
title() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
steps=0
step() {
  steps=$((steps + 1))
  printf '\n%s%d  %s%s\n' "$bold$blue" "$steps" "$1" "$plain"
}
say() { printf '   %s\n' "$@"; }

# shows [-n LINES] [-w WHERE] COMMAND...: runs the command, shows it and what it prints, indented and at most so many lines.
# The command's status is its own.
shows() {
  local most=40 where='' status=0 out shown
  while :; do
    case $1 in
      -n) most=$2; shift 2 ;;
      -w) where=$2; shift 2 ;;
      *) break ;;
    esac
  done
  printf '   %s%s$ %s%s\n' "$dim" "${where:+$where }" "${shown_as:-$*}" "$plain"
  out=$("$@" 2>&1) || status=$?
  shown=$(head -n "$most" <<<"$out" | cut -c1-150)
  [ -z "$shown" ] || sed 's/^/     /' <<<"$shown"
  [ "$(wc -l <<<"$out")" -le "$most" ] || printf '     %s...%s\n' "$dim" "$plain"
  return $status
}

# claim TEXT COMMAND...: the demo is a test too: a claim that is not so ends it.
claim() {
  local text=$1 out
  shift
  if out=$("$@" 2>&1); then
    printf '   %s✓%s %s\n' "$green" "$plain" "$text"
  else
    printf '   %s✗ %s%s\n' "$red" "$text" "$plain"
    printf '     %s\n' "it failed: $*" "$out"
    exit 1
  fi
}

# is_not COMMAND...: the opposite, for claims. nothing TEXT: the text is empty; otherwise it is shown.
is_not() { ! "$@"; }
nothing() { [ -z "$1" ] || { printf '%s\n' "$1"; return 1; }; }
same() { [ "$1" = "$2" ] || { printf '%s, not %s\n' "$2" "$1"; return 1; }; }

# built ROOT: what `make build` makes must be there.
built() {
  local file
  for file in target/x86_64-unknown-linux-musl/release/sandwire target/tool/sandwirectl out/plugins/bagpipe.wasm; do
    [ -e "$1/$file" ] || { printf '%s is not there: run  make build  first\n' "$file" >&2; exit 1; }
  done
}
