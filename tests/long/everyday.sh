#!/usr/bin/env bash
# Everyday use, on labs side by side: the second site.yml beside Helm by hand, the built collection as a new user installs it, check
# mode held against what then changes, and the examples of the documentation.
#   tests/long/everyday.sh                           labs of what this machine has built
#   BUNDLE=/media/bundle tests/long/everyday.sh      from a bundle, without a network; pytest has to be in .venv by then
# LOGS (build/everyday) gets a log of each, and the figures of tests/benchmarks/everyday.py.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/long/labs.sh

begin y 232 "${LOGS:-build/everyday}"
# The first one alone: it lays out the bundle.
up 0 || exit 1
(
  .venv/bin/ansible-playbook -e lab_name=y0 site.yml &&
    .venv/bin/python -m tests.benchmarks.everyday --lab y0 --rounds 5 --output "$logs/everyday.json" &&
    echo "PASSED second site.yml" || echo "FAILED second site.yml"
  down 0
) >"$logs/second_run.log" 2>&1 &
jobs+=($!)
share 1 release tests/long/test_release.py
share 2 check_mode tests/long/test_check_mode.py tests/integration/test_examples.py
finish
