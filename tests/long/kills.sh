#!/usr/bin/env bash
# The twenty kills of test_interrupts.py shared out on five labs side by side, and its faults on a sixth.
#   tests/long/kills.sh                           labs of what this machine has built
#   BUNDLE=/media/bundle tests/long/kills.sh      from a bundle, without a network; pytest has to be in .venv by then
# LOGS (build/kills) gets a log of each lab, EACH (4) is how many kills a lab gets.
set -u
cd "$(dirname "$0")/../.." || exit 1
export KILLS=${EACH:-4}
. tests/long/labs.sh

begin k 140 "${LOGS:-build/kills}"
# The first one alone: it lays out the bundle.
up 0 || exit 1
for number in 0 1 2 3 4; do
  FIRST=$((number * KILLS)) share $number "kills$number" tests/long/test_interrupts.py -k "killed or after_all"
done
share 5 faults tests/long/test_interrupts.py -k "not killed"
finish
