#!/bin/sh
# Installs what the lab needs from Debian or Ubuntu, and the Python packages into .venv. Typed again, it does nothing.
# With the argument `tests` also what the tests look with.
set -eu
cd "$(dirname "$0")/.."

fail() {
  echo "setup: $1" >&2
  exit 2
}

[ "$(uname -s)" = Linux ] || fail "the lab needs Linux; on other systems use a cluster of your own, see inventories/onprem"
[ "$(id -u)" = 0 ] || fail "the lab needs root, for namespaces and mounts: sudo make …"
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
  fail "Python 3.11 or newer is needed as '$python'; name another with PYTHON=/path/to/python3"

lists=lab/packages.txt
# Ubuntu has no Chromium outside its snap store.
[ "${1:-}" = tests ] && grep -q '^ID=debian' /etc/os-release && lists="$lists tests/packages.txt"

missing=
# Several files, word by word.
# shellcheck disable=SC2086
cat $lists >"${TMPDIR:-/tmp}/speechops-packages.$$"
while read -r program package _; do
  case $program in
    '' | '#'*) continue ;;
    /*) [ -e "$program" ] && continue ;;
    *) command -v "$program" >/dev/null && continue ;;
  esac
  case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac
done <"${TMPDIR:-/tmp}/speechops-packages.$$"
rm -f "${TMPDIR:-/tmp}/speechops-packages.$$"
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"

if [ -n "$missing" ]; then
  command -v apt-get >/dev/null || fail "these packages are missing and there is no apt-get:$missing"
  echo "setup: installing$missing"
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    # The packages bring services (containerd, haproxy) that the machine itself shall not run.
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  # Several packages, word by word.
  # shellcheck disable=SC2086
  apt-get install -q -y --no-install-recommends $missing
fi

stamp=.venv/.installed
wanted=$(sha256sum <requirements-dev.lock)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "setup: installing the Python packages of requirements-dev.lock into .venv (a minute or two)"
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.lock
  echo "$wanted" >"$stamp"
fi
