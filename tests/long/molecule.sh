#!/usr/bin/env bash
# Molecule scenarios side by side, each on a lab of its own: for a machine of many cores.
#   tests/long/molecule.sh                           all of them
#   tests/long/molecule.sh riva keda                 these
#   BUNDLE=/media/bundle tests/long/molecule.sh      labs from a bundle, without a network; molecule has to be in .venv by then
# LOGS (build/molecule) gets a log of each.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/long/labs.sh

begin m 208 "$(realpath -m "${LOGS:-build/molecule}")"
[ $# -gt 0 ] || for file in extensions/molecule/*/converge.yml; do
  set -- "$@" "$(basename "$(dirname "$file")")"
done
# The first one alone: it lays out the bundle.
up 0 || exit 1
export PATH=$PWD/.venv/bin:$PATH
number=0
for name; do
  (
    export "MOLECULE_LAB=$letter$number" "MOLECULE_NETWORK=$(network_of $number)"
    # What molecule remembers of the lab they would share.
    export "MOLECULE_EPHEMERAL_DIRECTORY=$logs/$name"
    began=$SECONDS
    if up $number && molecule test -s "$name"; then
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
