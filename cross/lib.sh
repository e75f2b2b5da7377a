# For the scripts of this project; sourced, with the current folder inside the checkout.
# Sets `root`, the checkout, and `target`, Cargo's target folder.

root=$(git rev-parse --show-toplevel 2>/dev/null || { cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd; })
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$root/$target ;; esac
export CARGO_TARGET_DIR=$target
cache=${SECO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/seco}

say() { echo "${0##*/}: $*" >&2; }

# Ends the script as a success: what a registry does not deliver is no defect. Not where it was asked for by hand.
skipped() { # what, why
  echo "SKIPPED $1: $2"
  [ -n "${CI:-}" ] && exit 0
  exit 1
}

# For a part of what a script does, which goes on. It ends with `[ -z "$missing" ] || [ -n "${CI:-}" ]`.
missing=
left_out() { # what, why
  echo "SKIPPED $1: $2"
  missing=yes
}

# Three tries: a registry may be busy.
retry() {
  local pause
  for pause in 5 20 0; do
    "$@" && return 0
    sleep "$pause"
  done
  return 1
}

# Fetches by the command what the Maven project in this folder needs, once for each state of its file.
fetched() {
  local known
  known=~/.m2/repository/.seco-$({ cat pom.xml; echo "$*"; } | sha256sum | cut -c1-16)
  [ -e "$known" ] || { retry "$@" && mkdir -p "${known%/*}" && touch "$known"; }
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

apt() { DEBIAN_FRONTEND=noninteractive as_root apt-get -o DPkg::Lock::Timeout=600 "$@" >&2; }

# Installs Debian packages that are missing.
need() {
  local package missing=()
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  install_missing() { apt update -qq && apt install -y -qq --no-install-recommends "${missing[@]}"; }
  retry install_missing
}

# Devices' builds are made by Debian's Rust, for its standard library can be built from source. Backtraces, which need
# symbols, are left out, and so are the places of panics and the contents of what is printed for debugging.
std=(-Z build-std=std,panic_unwind -Z build-std-features=panic-unwind,optimize_for_size)
lean="-Z location-detail=none -Z fmt-debug=shallow -C llvm-args=-inline-threshold=40"
