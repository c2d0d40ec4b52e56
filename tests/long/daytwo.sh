#!/usr/bin/env bash
# The tests of day two, shared out on labs side by side: for a machine of many cores.
#   tests/long/daytwo.sh                           labs of what this machine has built
#   BUNDLE=/media/bundle tests/long/daytwo.sh      from a bundle, without a network; pytest has to be in .venv by then
# LOGS (build/daytwo) gets a log of each.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/long/labs.sh

begin d 180 "${LOGS:-build/daytwo}"
# The first one alone: it lays out the bundle.
up 0 || exit 1
up 6 || exit 1
export USE_SECOND_LAB=d6
number=0
for name in clusters services upgrade secrets network_policies pains; do
  share $number $name tests/long/test_$name.py
  number=$((number + 1))
done
finish
ended=$?
down 6
exit $ended
