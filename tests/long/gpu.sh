#!/usr/bin/env bash
# The tests of GPU hosts and of both ways to GPUs, shared out on labs side by side: for a machine of many cores.
#   tests/long/gpu.sh                           labs of what this machine has built
#   BUNDLE=/media/bundle tests/long/gpu.sh      from a bundle, without a network; pytest and community.general have to be
#                                               in .venv by then, the hosts (hosts/ready/*.tar) in the cache
# LOGS (build/gpu) gets a log of each; it lies on a disk, for the hosts are layers beside the logs.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/long/labs.sh

begin g 204 "$(realpath -m "${LOGS:-build/gpu}")"
# The first one alone: it lays out the bundle.
up 0 || exit 1
for plugin in "connection community.general.chroot" "module community.general.dnf_versionlock"; do
  # Unquoted on purpose: kind and name.
  # shellcheck disable=SC2086
  .venv/bin/ansible-doc -t $plugin >/dev/null || exit 1
done
host=tests/long/test_gpu_host.py rpm=tests/long/test_gpu_host_rpm.py ways=tests/long/test_gpu_ways.py

# on LOG: where the hosts of these tests lie.
on() {
  echo "--basetemp=$logs/$1.tmp"
}

alone host_life "$(on host_life)" $host -k TestLifeOfADriver
alone host_refused "$(on host_refused)" $host -k "explained or named_before"
alone host_runtimes "$(on host_runtimes)" $host -k another_runtime
alone host_others "$(on host_others)" $host -k "not (TestLife or explained or named_before or another_runtime or of_a_cluster or cordon)"
alone rpm_life "$(on rpm_life)" $rpm -k TestLifeOfADriver
alone rpm_refused "$(on rpm_refused)" $rpm -k explained
alone rpm_others "$(on rpm_others)" $rpm -k "not (TestLife or explained)"
share 0 by_hand "$(on by_hand)" $ways -k "site_from_nothing or a_second_run_changes or serves_as_preinstalled"
share 1 by_hand_pains "$(on by_hand_pains)" $ways -k "the_other_way or pains_of_the_cluster or of_a_driver_that_is_there"
share 2 by_hand_upgrade "$(on by_hand_upgrade)" $ways -k "an_upgrade_brings or takes_the_driver_where"
share 3 operator "$(on operator)" $ways -k "operator_from_nothing or run_of_the_operators_way"
share 4 operator_groups "$(on operator_groups)" $ways -k "old_crds or ready_is_more or a_wait_names or groups_of_nodes or driver_and_labels"
share 5 bare "$(on bare)" $ways -k "a_pain_is_named_by_site or enterprise"
share 6 drained "$(on drained)" $host -k "of_a_cluster or cordon"
finish
ended=$?
rm -rf "$logs"/*.tmp
exit $ended
