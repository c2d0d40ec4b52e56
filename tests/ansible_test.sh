#!/bin/sh
# ansible-test, which wants the collection below ansible_collections/speechops/riva, beside kubernetes.core:
#
#   tests/ansible_test.sh sanity [--test NAME | --skip-test NAME ...]
#   tests/ansible_test.sh units [TEST ...]
#
# What it is given goes to ansible-test. The tools of sanity come from the Python package index, once, into environments of its own;
# units takes what .venv has.
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- sanity
kind=$1
shift
bin=$PWD/.venv/bin
roots=$PWD/build/$kind/ansible_collections
packages=$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
version=$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
rm -rf "$roots"
mkdir -p "$roots/speechops/riva"
ln -s "$packages/ansible_collections/kubernetes" "$roots/kubernetes"
# The link that makes the tests find the collection by its name leads round in a circle.
git ls-files -z --cached --others --exclude-standard | grep -zv '^collections/' | xargs -0 tar -c -f - --ignore-failed-read |
  tar -x -f - -C "$roots/speechops/riva"
cd "$roots/speechops/riva"
# Else it asks the repository around it, which ignores build.
git init --quiet .
git add --all
exec "$bin/ansible-test" "$kind" --python "$version" --color no "$@"
