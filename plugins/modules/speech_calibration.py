#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: speech_calibration
short_description: Finds how many streams one pod of a speech service carries
version_added: 1.0.0
description:
  - Holds levels of real-time streams on one pod, doubled until a level fails, then halved between the two, and holds
    the highest that passed once more, for longer. A level fails when too many chunks come later than the objective, or
    when the latency rises so that they would within the longest stream.
  - The streams must all reach the same pod, and no others may. C(playbooks/calibrate.yml) installs a release of one pod
    for it, with a route of its own.
  - Returns the entry of C(riva_calibration) that follows from it, and writes C(calibration.json) and C(index.html), a
    page that explains it, into O(report_folder). It changes nothing on the cluster.
  - Where the measurement agrees with the entry of before, within its confidence, that one is returned.
options:
  name:
    description: Name of the speech service that the figures are for.
    type: str
    required: true
  namespace:
    description: Its namespace.
    type: str
    default: riva
  release:
    description:
      - Release of the one pod. How long its models loaded, and the time in its queue, are read from it.
      - Without it neither is measured, and only O(endpoint) is needed.
    type: str
  metrics_port:
    description: Port of the pod's metrics page.
    type: int
    default: 8002
  endpoint:
    description:
      - C(host:port) that leads to the pod.
      - By default it is read from the status of the load balancer's Service.
    type: str
  route_host:
    description: Name that the load balancer's route to the pod answers to.
    type: str
  balancer_port:
    description: Name or number of its port that leads to the pod.
    type: str
    default: riva-grpc
  audio:
    description: Wav files, or folders of them. 16-bit mono PCM, all with the same sample rate.
    type: list
    elements: path
    required: true
  objective_ms:
    description: A chunk whose result comes later than this is late.
    type: float
    default: 300
  late_percent:
    description: So many percent of the chunks may be late.
    type: float
    default: 1
  longest_stream_seconds:
    description: The longest call of the service. A latency that rises must stay within the objective so long.
    type: float
    default: 600
  settle_seconds:
    description: The first seconds of each level, which do not count.
    type: float
    default: 5
  hold_seconds:
    description:
      - Seconds that each level is measured. One that is too near to call is measured up to three times as long.
    type: float
    default: 14
  confirm_seconds:
    description: Seconds that the highest level that passed is measured in the end.
    type: float
    default: 40
  first_streams:
    description: The first level.
    type: int
    default: 4
  max_streams:
    description: The highest level that may be held.
    type: int
    default: 500
  stream_seconds:
    description: The longest stream of a level, in seconds of audio; one that ends is replaced by a new one.
    type: float
    default: 60
  peak_streams:
    description: Streams of the busiest moment. With it the entry says how many replicas it takes.
    type: int
  base_streams:
    description: Streams of the quietest hour, for the fewest replicas.
    type: int
    default: 0
  spare_pods:
    description: Spare pods at the peak.
    type: float
    default: 1.75
  calibration:
    description: What was calibrated before, as C(riva_calibration).
    type: dict
    default: {}
  result_file:
    description:
      - A C(calibration.json) of before. Nothing is measured then; the entry is made anew from it, for example for
        another peak.
    type: path
  report_folder:
    description: Folder for the page. It is made if it is not there; a page in it is replaced.
    type: path
    required: true
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.speech_endpoint
attributes:
  check_mode:
    description: Checks the input and opens no stream. With O(result_file) the entry is returned as without check mode.
    support: full
  diff_mode:
    description: Nothing in the cluster is changed, so there is nothing to show.
    support: none
requirements:
  - matplotlib
  - jinja2
author:
  - speechops.riva maintainers (@speechops)
"""

EXAMPLES = r"""
- name: It is known what one pod carries
  speechops.riva.speech_calibration:
    kubeconfig: /etc/kubernetes/admin.conf
    name: riva-asr
    release: riva-asr-calibration
    route_host: riva-asr-calibration.invalid
    audio: [/srv/speech/calls]
    objective_ms: 300
    peak_streams: 400
    report_folder: build/calibration
"""

RETURN = r"""
headline:
  description: What one pod carries, in one sentence.
  returned: when it is known
  type: str
  sample: One pod of riva/riva-asr carries 21 streams within 300 ms (at 95 % confidence neither more nor less).
entry:
  description: Entry of C(riva_calibration) for the service; empty in check mode without a result.
  returned: success
  type: dict
  sample: {"stream_limit": 21, "planned_streams": 20, "model_load_seconds": 12.0}
calibration:
  description: O(calibration) with the entry in it.
  returned: success
  type: dict
  sample: {"riva-asr": {"stream_limit": 21, "planned_streams": 20}}
capacity:
  description: What one pod carries, with its bounds and the saturation.
  returned: when it is known
  type: dict
  sample: {"streams": 21, "low": 21, "high": 21, "saturation": 21.3, "bounded": false}
kept:
  description: Whether the entry of before stays, since the measurement agrees with it.
  returned: when it is known
  type: bool
report:
  description: Path of the page.
  returned: when it was written
  type: str
  sample: /root/build/calibration/index.html
"""

import asyncio
import datetime
import json
import os
import time
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.speechops.riva.plugins.module_utils import calibration_rules as rules
from ansible_collections.speechops.riva.plugins.module_utils import load_libraries
from ansible_collections.speechops.riva.plugins.module_utils.calibration_run import (
    Calibration,
    CalibrationError,
    Pace,
)
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Deadline, auth_argument_spec, connect
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError
from ansible_collections.speechops.riva.plugins.module_utils.load_audio import AudioError, read_audio
from ansible_collections.speechops.riva.plugins.module_utils.load_cluster import EndpointError, endpoint_of
from ansible_collections.speechops.riva.plugins.module_utils.load_numbers import percentile
from ansible_collections.speechops.riva.plugins.module_utils.load_options import endpoint_arguments
from ansible_collections.speechops.riva.plugins.module_utils.load_run import Plan, Recorder, alive
from ansible_collections.speechops.riva.plugins.module_utils.load_streams import (
    EndpointSilent,
    ask_server,
    tls_of,
)
from ansible_collections.speechops.riva.plugins.module_utils.report_calibration import (
    SCHEMA,
    console_table,
    headline,
    write_result,
)

PROGRESS = "levels.jsonl"
SECONDS_FOR_ONE_LOOK = 15
SECONDS_FOR_FIRST_ANSWER = 15


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **auth_argument_spec(),
            **endpoint_arguments(),
            "name": {"type": "str", "required": True},
            "namespace": {"type": "str", "default": "riva"},
            "release": {"type": "str"},
            "metrics_port": {"type": "int", "default": 8002},
            "endpoint": {"type": "str"},
            "route_host": {"type": "str"},
            "balancer_port": {"type": "str", "default": "riva-grpc"},
            "audio": {"type": "list", "elements": "path", "required": True},
            "objective_ms": {"type": "float", "default": 300},
            "late_percent": {"type": "float", "default": 1},
            "longest_stream_seconds": {"type": "float", "default": 600},
            "settle_seconds": {"type": "float", "default": 5},
            "hold_seconds": {"type": "float", "default": 14},
            "confirm_seconds": {"type": "float", "default": 40},
            "first_streams": {"type": "int", "default": 4},
            "max_streams": {"type": "int", "default": 500},
            "stream_seconds": {"type": "float", "default": 60},
            "peak_streams": {"type": "int"},
            "base_streams": {"type": "int", "default": 0},
            "spare_pods": {"type": "float", "default": 1.75},
            "calibration": {"type": "dict", "default": {}},
            "result_file": {"type": "path"},
            "report_folder": {"type": "path", "required": True},
            "stop_with_process": {"type": "int"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if missing := load_libraries.missing():
        module.fail_json(msg=missing_required_lib(missing[0]), exception=missing[1])
    audio, earlier = check_input(module)
    if earlier is None and module.check_mode:
        module.exit_json(changed=False, entry={}, calibration=params["calibration"], msg="no stream was opened")
    finish(module, earlier or measure(module, audio))


def check_input(module: AnsibleModule):
    """Check all options before anything is asked or opened; return the audio and an earlier result."""
    params = module.params
    problems, audio, earlier = rules.problems(params), None, None
    if params["result_file"]:
        try:
            with open(params["result_file"], encoding="utf-8") as file:
                earlier = json.load(file)
            if earlier["schema"] != SCHEMA or earlier["service"] != f"{params['namespace']}/{params['name']}":
                problems.append(
                    f"result_file: {params['result_file']} is of {earlier['service']}, or of another version"
                )
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"result_file: {params['result_file']} is no calibration.json ({error})")
    else:
        try:
            audio = read_audio(params["audio"])
        except AudioError as error:
            problems.append(f"audio: {error}")
        if not params["release"] and not params["endpoint"]:
            problems.append("endpoint: without a release the address of the pod must be given, as host:port")
    if problems:
        hint = "In playbooks/calibrate.yml these options are the variables calibrate_<option>."
        module.fail_json(msg="\n".join(["wrong input:", *(f"  {problem}" for problem in problems), hint]))
    return audio, earlier


def look_at_pod(module: AnsibleModule, cluster) -> dict:
    """Return the one pod of the release."""
    params = module.params
    query = {"labelSelector": f"app.kubernetes.io/instance={params['release']}"}
    pods = cluster.get(f"/api/v1/namespaces/{params['namespace']}/pods", query)["items"]
    pods = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    if len(pods) != 1:
        module.fail_json(
            msg=f"release {params['release']} has {len(pods)} pods in namespace {params['namespace']}; to say what one "
            "pod carries it must have just one"
        )
    return pods[0]


def measure(module: AnsibleModule, audio) -> dict:
    """Hold the levels; return the result without the entry."""
    params = module.params
    load, metrics, endpoint = None, (lambda: ""), params["endpoint"]
    try:
        if params["release"] or not endpoint:
            cluster = connect(module, Deadline(SECONDS_FOR_ONE_LOOK))
        if params["release"]:
            pod = look_at_pod(module, cluster)
            load, metrics = rules.model_load(pod), metrics_of(cluster, pod, params)
        if not endpoint:
            namespace, service = params["balancer_namespace"], params["balancer_service"]
            found = cluster.get(f"/api/v1/namespaces/{namespace}/services/{service}")
            endpoint = endpoint_of(found, params["balancer_port"])
    except ClusterError as error:
        module.fail_json(msg=f"{error}; {error.remedy}" if error.remedy else str(error))
    except EndpointError as error:
        module.fail_json(msg=f"{error} (option endpoint)")
    tls = tls_of(params)
    wait_for_answer(module, endpoint, tls)
    os.makedirs(params["report_folder"], exist_ok=True)
    recorder = Recorder(os.path.join(params["report_folder"], PROGRESS))
    started, begin, lines = datetime.datetime.now(datetime.UTC), time.monotonic(), []

    def told(level) -> None:
        lines.append(f"{level.streams} streams: {level.judgement.state}; {level.judgement.reason}")
        recorder.write("progress", time.monotonic() - begin, lines=lines)

    plan = Plan(
        endpoint=endpoint,
        host=params["route_host"] or "",
        tls=tls,
        steps=[],
        tail_seconds=0,
        stream_grace_seconds=60,
        sample_seconds=60,
        max_streams=10**9,
        **{
            name: params[name]
            for name in (
                "namespace",
                "name",
                "chunk_duration_ms",
                "stream_seconds",
                "objective_ms",
                "language_code",
            )
        },
    )
    objective = rules.Objective(params["objective_ms"], params["late_percent"], params["longest_stream_seconds"])
    pace = Pace(params["settle_seconds"], params["hold_seconds"], params["confirm_seconds"])
    keep_going = alive(params["stop_with_process"])
    run = Calibration(plan, audio, objective, pace, metrics, told, keep_going)
    try:
        levels = run.run(params["first_streams"], params["max_streams"])
    except CalibrationError as error:
        module.fail_json(msg=str(error), levels=[level.to_dict() for level in run.levels])
    finally:
        recorder.close()
    capacity = rules.capacity_of(levels, params["max_streams"])
    return {
        "schema": SCHEMA,
        "service": f"{params['namespace']}/{params['name']}",
        "endpoint": endpoint,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - begin, 1),
        "objective": asdict(objective),
        "settings": {
            key: params[key]
            for key in ("chunk_duration_ms", "stream_seconds", "settle_seconds", "hold_seconds", "confirm_seconds")
        },
        "capacity": asdict(capacity),
        "model_load": load,
        "queue_seen": any(level.queue_ms is not None for level in levels) if params["release"] else None,
        "pacing_lag_p99_ms": percentile(sorted(run.lags), 99) if run.lags else None,
        "measured": rules.entry_of(
            levels, capacity, objective, load["load_s"] if load else None, rules.cold_start_seconds(load)
        ),
        "levels": [level.to_dict() for level in levels],
    }


def metrics_of(cluster, pod: dict, params: dict):
    """Return a function that reads the pod's metrics page, or nothing where it can't."""
    path = (
        f"/api/v1/namespaces/{params['namespace']}/pods/http:{pod['metadata']['name']}:{params['metrics_port']}"
        "/proxy/metrics"
    )

    def read() -> str:
        cluster.deadline = Deadline(SECONDS_FOR_ONE_LOOK)
        try:
            return cluster.get(path, text=True)
        except ClusterError:
            return ""

    return read


def wait_for_answer(module: AnsibleModule, endpoint: str, tls) -> None:
    """Wait until the pod is reached: a load balancer may take a second to learn of a new route."""
    params = module.params
    deadline = Deadline(SECONDS_FOR_FIRST_ANSWER)
    while True:
        try:
            asyncio.run(ask_server(endpoint, SECONDS_FOR_FIRST_ANSWER, params["route_host"] or "", tls))
            return
        except EndpointSilent as error:
            if deadline.left() < 1:
                as_host = f" as {params['route_host']}" if params["route_host"] else ""
                module.fail_json(
                    msg=f"no speech service answers at {endpoint}{as_host}: {error}; check the pod and its route, or "
                    "name another address (option endpoint)"
                )
            time.sleep(1)


def finish(module: AnsibleModule, result: dict) -> None:
    """Settle the entry, write the page, and tell."""
    params = module.params
    capacity = rules.Capacity(**result["capacity"])
    old = params["calibration"].get(params["name"])
    settled = rules.settled_entry(old, result["measured"], capacity)
    entry = rules.with_replicas(settled, params["peak_streams"], params["base_streams"], params["spare_pods"])
    peak = {key: params[key] for key in ("peak_streams", "base_streams", "spare_pods")}
    result |= {
        "entry": entry,
        "kept": bool(old) and settled != result["measured"],
        "peak": peak if params["peak_streams"] is not None else None,
    }
    answer = {
        "headline": headline(result),
        "entry": entry,
        "calibration": {**params["calibration"], params["name"]: entry},
        "capacity": result["capacity"],
        "kept": result["kept"],
        "table": console_table(result),
    }
    if not module.check_mode:
        answer["report"] = write_result(params["report_folder"], result)
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
