# For the packages' tests, sourced after cross/lib.sh: what the section "Fifteen minutes ..." of a package's README says is
# taken from there and done in a fresh folder, as a new user would.

fresh=$(mktemp -d)
server=
end_fresh() {
  # Its servers end with it.
  [ -z "$server" ] || { kill -INT "$server" && wait "$server"; } 2>/dev/null || true
  rm -rf "$fresh"
}
trap end_fresh EXIT

# The section's fenced block of this kind and number, with this machine's paths for the README's.
block() { # kind, number, what to put for SECO/deployment.toml
  awk -v kind="$1" -v number="$2" '
    /^## / { inside = /Fifteen minutes/ }
    /^```/ && inside {
      taken = 0
      if (!fenced && $0 == "```" kind && ++count == number) taken = found = 1
      fenced = !fenced
      next
    }
    taken
    END { exit !found }' README.md |
    sed -e "s|SECO/deployment.toml|${3:-}|g" -e "s|\(SECO/\)\?\btarget/|$target/|g" -e "s|SECO/|$root/|g" ||
    { echo "README.md: no block $2 of $1 in its first steps" >&2; return 1; }
}

# Starts the servers that the README starts; the deployment file is $fresh/deployment.toml.
serve() {
  local command
  command=$(block sh 1 | grep ' demo ')
  (cd "$fresh" && exec $command) >"$fresh/log" 2>&1 &
  server=$!
  for _ in $(seq 3000); do
    grep -q -- --deployment "$fresh/log" && return 0
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  cat "$fresh/log"
  echo "README.md: its servers did not start: $command"
  return 1
}

# Compares what was printed with what the README says; the number of bytes may be another one of three digits.
prints() { # file
  # Maven ends its output with a colour.
  near() { sed -e 's/\x1b\[[0-9;]*m//g' -e 's/\b[0-9]\{3\} bytes/NNN bytes/' -e '/^$/d'; }
  block text 1 >"$fresh/expected"
  [ -s "$fresh/expected" ] && diff <(near <"$fresh/expected") <(near <"$1") || { echo "README.md: its first steps print something else"; return 1; }
  echo "$2, made from README.md's lines, printed the same as there"
}
