#!/usr/bin/env bash
# The tests of engines and autoscalers, shared out on labs side by side: for a machine of many cores.
#   tests/long/engines.sh                           labs of what this machine has built
#   BUNDLE=/media/bundle tests/long/engines.sh      from a bundle, without a network; pytest has to be in .venv by then,
#                                                   KEDA's and rclone's programs and archives (`lab add`) in the cache
# LOGS (build/engines) gets a log of each.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/long/labs.sh

begin e 220 "${LOGS:-build/engines}"
# The first one alone: it lays out the bundle.
up 0 || exit 1
alone switching tests/long/test_switching.py
share 0 keda tests/long/test_keda.py -k "not without_prometheus and not scraping and not sleeps"
share 1 keda_fallback tests/long/test_keda.py -k "without_prometheus or scraping"
share 2 keda_zero tests/long/test_keda.py -k sleeps
share 3 caches tests/long/test_model_cache.py tests/long/test_openshift.py
share 4 synthesis tests/long/test_speech_kinds.py -k "not riva-nmt"
share 5 translation tests/long/test_speech_kinds.py -k riva-nmt
finish
