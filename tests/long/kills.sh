#!/usr/bin/env bash
# The twenty kills of test_interrupts.py shared out on five labs side by side, and its faults on a sixth.
#   tests/long/kills.sh                           labs of what this machine has built
#   BUNDLE=/media/bundle tests/long/kills.sh      from a bundle, without a network; pytest has to be in .venv by then
# LOGS (build/kills) gets a log of each lab, EACH (4) is how many kills a lab gets.
set -u
cd "$(dirname "$0")/../.." || exit 1
logs=${LOGS:-build/kills}
each=${EACH:-4}
bundle=${BUNDLE:+--bundle $BUNDLE}
mkdir -p "$logs"
# Each kubelet and containerd watches files.
sysctl -q fs.inotify.max_user_instances=2048 || true

up() {
  local python=.venv/bin/python
  [ -x $python ] || python=python3
  # Unquoted on purpose: two words, or none.
  # shellcheck disable=SC2086
  $python -m lab up --name "k$1" --network "10.$((140 + 4 * $1)).0.0/22" $bundle
}

share() {
  local number=$1
  shift
  up "$number" && env USE_LAB="k$number" "$@"
  local ended=$?
  .venv/bin/python -m lab down --name "k$number"
  return $ended
}

pytest=(.venv/bin/python -m pytest tests/long/test_interrupts.py -rA --durations=0)
# The first one alone: it lays out the bundle.
up 0 || exit 1
jobs=()
for number in 0 1 2 3 4; do
  share $number FIRST=$((number * each)) KILLS="$each" "${pytest[@]}" -k "killed or after_all" >"$logs/kills$number.log" 2>&1 &
  jobs+=($!)
done
share 5 "${pytest[@]}" -k "not killed" >"$logs/faults.log" 2>&1 &
jobs+=($!)
ended=0
for job in "${jobs[@]}"; do
  wait "$job" || ended=1
done
grep -hE "^(PASSED|FAILED|ERROR)|^=+ .* in |killed at|ended with" "$logs"/*.log
exit $ended
