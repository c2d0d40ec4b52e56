# shellcheck shell=bash
# For the scripts beside it, which share tests out on labs side by side.

# begin LETTER NETWORK LOGS: the labs are called LETTER and a number; NETWORK is the second number of their addresses.
begin() {
  letter=$1 network=$2 logs=$3 jobs=()
  bundle=${BUNDLE:+--bundle $BUNDLE}
  mkdir -p "$logs"
  # Each kubelet and containerd watches files. In a container it can't be set, and what the machine has may be enough.
  sysctl -q fs.inotify.max_user_instances=2048 || true
}

network_of() {
  echo "10.$network.$((4 * $1)).0/22"
}

up() {
  local python=.venv/bin/python
  [ -x $python ] || python=python3
  # Unquoted on purpose: two words, or none.
  # shellcheck disable=SC2086
  $python -m lab up --name "$letter$1" --network "$(network_of "$1")" $bundle
}

down() {
  .venv/bin/python -m lab down --name "$letter$1"
}

# Of side by side each has a temporary folder of its own: pytest keeps the last three that it finds, and takes the others away.
tests() {
  .venv/bin/python -m pytest -s -rA --durations=0 --basetemp "$(mktemp -d)" "$@"
}

# share N LOG WORD...: tests on a lab of their own, in the background.
share() {
  local number=$1 log=$2
  shift 2
  (
    export "USE_LAB=$letter$number"
    up "$number" && tests "$@"
    ended=$?
    down "$number"
    exit $ended
  ) >"$logs/$log.log" 2>&1 &
  jobs+=($!)
}

# alone LOG WORD...: tests that need no lab, in the background.
alone() {
  local log=$1
  shift
  tests "$@" >"$logs/$log.log" 2>&1 &
  jobs+=($!)
}

# Waits for all, tells how each test ended, and is true if none failed.
finish() {
  local ended=0
  for job in "${jobs[@]}"; do
    wait "$job" || ended=1
  done
  grep -hE "^(PASSED|FAILED|ERROR)|^=+ .* in |killed at|ended with" "$logs"/*.log
  return $ended
}
