#!/usr/bin/env bash
# The tests of day two, shared out on labs side by side: for a machine of many cores.
#   tests/long/daytwo.sh                           labs of what this machine has built
#   BUNDLE=/media/bundle tests/long/daytwo.sh      from a bundle, without a network; pytest has to be in .venv by then
# LOGS (build/daytwo) gets a log of each.
set -u
cd "$(dirname "$0")/../.." || exit 1
logs=${LOGS:-build/daytwo}
bundle=${BUNDLE:+--bundle $BUNDLE}
mkdir -p "$logs"
# Each kubelet and containerd watches files.
sysctl -q fs.inotify.max_user_instances=2048 || true

up() {
  local python=.venv/bin/python
  [ -x $python ] || python=python3
  # Unquoted on purpose: two words, or none.
  # shellcheck disable=SC2086
  $python -m lab up --name "d$1" --network "10.$((180 + 4 * $1)).0.0/22" $bundle
}

share() {
  local number=$1 ended
  shift
  up "$number" && env USE_LAB="d$number" USE_SECOND_LAB=d5 .venv/bin/python -m pytest -rA --durations=0 "$@"
  ended=$?
  .venv/bin/python -m lab down --name "d$number"
  return $ended
}

# The first one alone: it lays out the bundle.
up 0 || exit 1
up 5 || exit 1
jobs=()
number=0
for name in clusters services upgrade secrets; do
  if [ -f tests/long/test_$name.py ]; then
    share $number tests/long/test_$name.py >"$logs/$name.log" 2>&1 &
    jobs+=($!)
  fi
  number=$((number + 1))
done
ended=0
for job in "${jobs[@]}"; do
  wait "$job" || ended=1
done
.venv/bin/python -m lab down --name d5
grep -hE "^(PASSED|FAILED|ERROR)|^=+ .* in " "$logs"/*.log
exit $ended
