#!/usr/bin/env bash
# The tests of the way in, shared out on labs side by side: for a machine of many cores.
#   tests/long/way.sh                           labs of what this machine has built
#   BUNDLE=/media/bundle tests/long/way.sh      from a bundle, without a network: what is built by Go then is left out
# LOGS (build/way) gets a log of each lab, and figures.jsonl.
set -u
cd "$(dirname "$0")/../.." || exit 1
logs=${LOGS:-build/way}
bundle=${BUNDLE:+--bundle $BUNDLE}
mkdir -p "$logs"
figures=$(realpath "$logs")/figures.jsonl
# Each kubelet and containerd watches files.
sysctl -q fs.inotify.max_user_instances=2048 || true

up() {
  local python=.venv/bin/python
  [ -x $python ] || python=python3
  # Unquoted on purpose: two words, or none.
  # shellcheck disable=SC2086
  $python -m lab up --name "w$1" --network "10.$((164 + 4 * $1)).0.0/22" $bundle
}

share() {
  local number=$1 ended
  shift
  up "$number" && env USE_LAB="w$number" RECORD="$figures" .venv/bin/python -m pytest -s -rA --durations=0 "$@"
  ended=$?
  .venv/bin/python -m lab down --name "w$number"
  return $ended
}

built=${BUNDLE:+ and not cert_manager and not gateway_api}
# The first one alone: it lays out the bundle.
up 0 || exit 1
jobs=()
share 0 tests/long/test_way_in.py -k "not half_open" >"$logs/way_in.log" 2>&1 &
jobs+=($!)
share 1 tests/long/test_whole_runs.py -k "not nowhere$built" >"$logs/whole_runs.log" 2>&1 &
jobs+=($!)
share 2 tests/long/test_exposure.py tests/long/test_guards.py >"$logs/guards.log" 2>&1 &
jobs+=($!)
share 3 tests/long/test_routes.py tests/long/test_way_in.py -k "test_routes or half_open" >"$logs/routes.log" 2>&1 &
jobs+=($!)
ended=0
for job in "${jobs[@]}"; do
  wait "$job" || ended=1
done
grep -hE "^(PASSED|FAILED|ERROR)|^=+ .* in " "$logs"/*.log
cat "$figures"
exit $ended
