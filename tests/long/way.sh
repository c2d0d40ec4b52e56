#!/usr/bin/env bash
# The tests of the way in, shared out on labs side by side: for a machine of many cores.
#   tests/long/way.sh                           labs of what this machine has built
#   BUNDLE=/media/bundle tests/long/way.sh      from a bundle, without a network: what is built by Go then is left out
# LOGS (build/way) gets a log of each lab, and figures.jsonl.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/long/labs.sh

begin w 164 "${LOGS:-build/way}"
RECORD=$(realpath "${LOGS:-build/way}")/figures.jsonl
export RECORD
built=${BUNDLE:+ and not cert_manager and not gateway_api}
# The first one alone: it lays out the bundle.
up 0 || exit 1
share 0 way_in tests/long/test_way_in.py -k "not half_open"
share 1 whole_runs tests/long/test_whole_runs.py -k "not nowhere$built"
share 2 guards tests/long/test_exposure.py tests/long/test_guards.py
share 3 routes tests/long/test_routes.py tests/long/test_way_in.py -k "test_routes or half_open"
finish
ended=$?
cat "$RECORD"
exit $ended
