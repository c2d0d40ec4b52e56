#!/usr/bin/env bash
# Molecule scenarios side by side, each on a lab of its own.
#   tests/long/molecule.sh                           all of them
#   tests/long/molecule.sh riva keda                 these
#   BUNDLE=/media/bundle tests/long/molecule.sh      labs from a bundle, without a network; molecule has to be in .venv by then
# JOBS at a time (a third of the processors, and at least three: much of a scenario is waiting); LOGS (build/molecule) gets a log of each.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/long/labs.sh

begin m 208 "$(realpath -m "${LOGS:-build/molecule}")"
at_a_time=${JOBS:-$(($(nproc) > 9 ? $(nproc) / 3 : 3))}
if [ $# -eq 0 ]; then
  # The longest first, or one of them would be left alone at the end.
  set -- riva keda
  for file in extensions/molecule/*/converge.yml; do
    name=$(basename "$(dirname "$file")")
    case " $* " in *" $name "*) ;; *) set -- "$@" "$name" ;; esac
  done
fi
# The first one alone: it lays out the bundle.
up 0 || exit 1
export PATH=$PWD/.venv/bin:$PATH
number=0
for name; do
  while [ "$(jobs -rp | wc -l)" -ge "$at_a_time" ]; do sleep 1; done
  (
    export "MOLECULE_LAB=$letter$number" "MOLECULE_NETWORK=$(network_of $number)"
    # What molecule remembers of the lab they would share.
    export "MOLECULE_EPHEMERAL_DIRECTORY=$logs/$name"
    began=$SECONDS
    # A scenario that shares no state needs no lab, and takes none down.
    if { grep -q '^shared_state: false' "extensions/molecule/$name/molecule.yml" || up $number; } && molecule test -s "$name"; then
      echo "PASSED molecule $name in $((SECONDS - began)) s"
    else
      echo "FAILED molecule $name in $((SECONDS - began)) s"
      down $number
      exit 1
    fi
  ) >"$logs/$name.log" 2>&1 &
  jobs+=($!)
  number=$((number + 1))
done
finish
ended=$?
echo "$number scenarios in $SECONDS s, $at_a_time at a time"
exit $ended
