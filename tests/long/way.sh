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
built=" or cert_manager or gateway_api"
[ -z "${BUNDLE:-}" ] || built=""
# The first one alone: it lays out the bundle.
up 0 || exit 1
share 0 streams tests/long/test_way_in.py -k "long_streams or 300_streams or spread or bad_calls"
share 1 pods tests/long/test_way_in.py -k "scale_up or dies"
share 2 updates tests/long/test_way_in.py -k "rolling or traefiks"
share 3 routes tests/long/test_routes.py tests/long/test_way_in.py -k "test_routes or half_open"
share 4 guards tests/long/test_exposure.py tests/long/test_guards.py
share 5 plain tests/long/test_whole_runs.py -k "none or given$built"
share 6 tls tests/long/test_whole_runs.py -k "TLS and not mTLS"
share 7 mtls tests/long/test_whole_runs.py -k "mTLS"
finish
ended=$?
cat "$RECORD"
exit $ended
