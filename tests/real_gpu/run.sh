#!/bin/sh
# The whole chain on a machine with real NVIDIA GPUs, as one command:
#
#   tests/real_gpu/run.sh BUNDLE PYTHON-WITH-PYTORCH [RESULTS]
#
# It needs root and a bundle made with `python -m lab bundle BUNDLE --gpus real` for this machine's python3. Each step's
# output, seconds and exit code go to RESULTS (build/real-gpu); a step that fails does not keep the others from running.
# The lab is left up. REAL_ONLY="site load" runs only the steps named; REAL_NETWORK, REAL_LOAD and REAL_SECONDS change the
# lab and the load.
set -u
cd "$(dirname "$0")/../.." || exit
bundle=$1 torch=$2 results=${3:-$PWD/build/real-gpu}
mkdir -p "$results"
results=$(cd "$results" && pwd)
export PWD="$results" ANSIBLE_FORCE_COLOR=0
cache=${SPEECHOPS_LAB_CACHE:-$HOME/.cache/speechops-lab}
lab="--name real --network ${REAL_NETWORK:-10.101.0.0/22}"
: >"$results/steps.tsv"

step() { # name, then the command
  name=$1
  shift
  case " ${REAL_ONLY:-$name} " in *" $name "*) ;; *) return 0 ;; esac
  echo "=== $name: $*"
  begin=$(date +%s)
  "$@" >"$results/$name.log" 2>&1
  code=$?
  tail -n 4 "$results/$name.log"
  printf '%s\t%s\t%s\n' "$name" "$(($(date +%s) - begin))" "$code" | tee -a "$results/steps.tsv"
  return $code
}

play() { # name, playbook, then further arguments
  name=$1 playbook=$2
  shift 2
  step "$name" .venv/bin/ansible-playbook -i inventories/lab -i tests/real_gpu/inventory.yml "$playbook" -e lab_name=real \
    -e "real_gpus=$gpus" -e "real_nodes=$nodes" "$@"
}

has_gpus() { nvidia-smi -L; }
step nvidia-smi has_gpus || exit 2
gpus=$(nvidia-smi -L | grep -c '^GPU ')
nodes=1
nvidia-smi -q -x >"$results/nvidia-smi.xml"
# Beside the installation, on the last GPU, which has nothing to do yet.
CUDA_VISIBLE_DEVICES=$((gpus - 1)) step service-times "$torch" lab/standins/riva/gpu_worker.py --size=1.1b,0.6b \
  --seconds=0.3 --measure="$results/service-times.json" &
measuring=$!

# Unquoted on purpose: options, or none.
# shellcheck disable=SC2086
step lab-up python3 -m lab up --bundle "$bundle" $lab --gpus real --gpu-nodes 1 --torch "$torch" || exit 2
kubeconfig=$(.venv/bin/python -m lab kubeconfig --name real)
export KUBECONFIG="$kubeconfig"
kubectl="$cache/bin/kubectl"

play site site.yml
play site-again site.yml
"$kubectl" get nodes -o json >"$results/nodes.json"
"$kubectl" get pods -A -o wide >"$results/pods.txt"
wait $measuring
play verify playbooks/verify.yml -i tests/real_gpu/hosts.yml -e verify_report_file="$results/verify.json"
step labels .venv/bin/ansible -i tests/real_gpu/hosts.yml real-gpu-1 -m speechops.riva.gpu_hardware_info \
  -a "node=real-gpu-1"
# The GPUs' own figures beside those of the pods, once a second.
nvidia-smi --query-gpu=timestamp,index,utilization.gpu,memory.used,power.draw,clocks.sm --format=csv -l 1 \
  >"$results/gpus.csv" 2>/dev/null &
watch=$!
# The pod's shell is to expand these, not this one.
# shellcheck disable=SC2016
# Which GPU each pod was given, every 15 s.
allocations() {
  for pod in $("$kubectl" -n riva get pods -l app.kubernetes.io/component=speech-server -o name); do
    # The pod's shell is to expand these, not this one.
    # shellcheck disable=SC2016
    echo "$pod $("$kubectl" -n riva exec "$pod" -c riva -- sh -c 'echo "$NVIDIA_VISIBLE_DEVICES" /dev/nvidia[0-9]*')"
  done
}
(while kill -0 $watch 2>/dev/null; do
  date +%T
  allocations
  sleep 15
done >"$results/allocations.txt" 2>&1) &

# More than one GPU carries, less than all do.
load=${REAL_LOAD:-$((gpus > 1 ? 115 * gpus - 30 : 100))}
expect='[1'
[ "$gpus" -gt 1 ] && expect="$expect, $gpus, 1"
# A full pod refuses, and p2c may choose it while the other one has room: one in a hundred is let pass.
play load playbooks/load_test.yml -e "{\"load_test_profile\": [{\"streams\": 20, \"duration\": 10}, {\"streams\": $load, \"duration\": ${REAL_SECONDS:-120}, \"ramp\": 60}], \"load_test_expect_replicas\": $expect]}" \
  -e load_test_report_folder="$results/report" -e load_test_max_streams=20000 -e load_test_max_refused_streams=13 -e load_test_tail_seconds=150
kill $watch

# It needs a GPU beside the service's: the pod that left finishes its streams first.
one_pod() {
  for _ in $(seq 90); do
    [ "$("$kubectl" -n riva get pods --no-headers | wc -l)" -le 1 ] && return 0
    sleep 1
  done
  return 1
}
[ "$gpus" -gt 1 ] && step one-pod one_pod
[ "$gpus" -gt 1 ] && play calibrate playbooks/calibrate.yml -e calibrate_first_streams=100 -e calibrate_max_streams=220 \
  -e calibrate_hold_seconds=10 -e calibrate_settle_seconds=4 -e calibrate_confirm_seconds=25 -e calibrate_peak_streams="$load" -e calibrate_report_folder="$results/calibration" -e calibrate_file="$results/calibration.yml"

play preinstalled site.yml --tags gpu -e gpu_stack=preinstalled

# One GPU too few: the pod that is Pending has to be explained by its name.
play one-too-few site.yml --tags riva -e "real_min_replicas=$((gpus + 1))" -e "real_max_replicas=$((gpus + 1))" -e riva_model_load_seconds=40 -e riva_timeout=45
"$kubectl" get events -A --field-selector reason=FailedScheduling >"$results/pending-events.txt"
play verify-one-too-few playbooks/verify.yml
play mended site.yml --tags riva
"$kubectl" -n riva logs -l app.kubernetes.io/component=speech-server -c riva --tail=40 >"$results/speech.log"
"$kubectl" get --raw /apis/custom.metrics.k8s.io/v1beta1 >"$results/custom-metrics.json"

# The other way to share the GPUs out: each node sees one.
if [ "$gpus" -gt 1 ]; then
  nodes=$gpus
  step lab-down .venv/bin/python -m lab down --name real
  # Unquoted on purpose: options, or none.
  # shellcheck disable=SC2086
  step lab-up-per-gpu .venv/bin/python -m lab up --bundle "$bundle" $lab --gpus real --gpu-nodes "$gpus" --torch "$torch"
  play site-per-gpu site.yml -e "real_min_replicas=$gpus"
  "$kubectl" get nodes -o json >"$results/nodes-per-gpu.json"
  "$kubectl" get pods -A -o wide >"$results/pods-per-gpu.txt"
  allocations >"$results/allocations-per-gpu.txt"
  play verify-per-gpu playbooks/verify.yml
fi
echo; cat "$results/steps.tsv"
