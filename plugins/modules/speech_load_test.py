#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: speech_load_test
short_description: Loads a speech service with real-time streams and reports how it scaled
version_added: 0.1.0
description:
  - Opens recognition streams with NVIDIA's Python client, each over a connection of its own, and sends audio at the
    pace of real speech. With O(speech=tts) and O(speech=nmt) a stream is a caller who has a text read aloud or
    translated every O(text_seconds), and what is said of chunks holds for texts.
  - The number of streams follows a profile or a trace; a stream that ends is replaced by a new one, but for a trace of
    single calls.
  - Meanwhile it watches the service's HorizontalPodAutoscaler, Deployment, pods and events, and the streams of each
    pod; after the load it goes on watching until the service is back at its smallest size.
  - It changes nothing. With a ceiling of streams and the O(abort_failed_percent) and O(abort_latency_ms) options it is
    fit for a service that people use.
  - Writes C(samples.jsonl) (each thing as it is seen), C(summary.json) (all figures) and C(index.html) (a page with
    pictures) into O(report_folder).
  - The latency of a result is the time from sending the newest chunk that the result covers to receiving it.
  - With a local connection a line of progress is shown every ten seconds, and the table of figures at the end.
options:
  name:
    description: Name of the speech service. Its Deployment's HorizontalPodAutoscaler carries this name.
    type: str
    default: riva-asr
  namespace:
    description: Namespace of the speech service.
    type: str
    default: riva
  endpoint:
    description:
      - C(host:port) to which the streams are sent.
      - By default it is read from the status of the load balancer's Service.
    type: str
  balancer_port:
    description: Name or number of the port of O(balancer_service) that leads to the speech service.
    type: str
    default: riva-grpc
  audio:
    description:
      - Wav files, or folders of them. 16-bit mono PCM, all with the same sample rate.
      - They are joined end to end until a stream has its length.
      - Needed with O(speech=asr), and without effect else.
    type: list
    elements: path
  speech:
    description: What the service does, recognition (V(asr)), synthesis (V(tts)) or translation (V(nmt)).
    type: str
    choices: [asr, tts, nmt]
    default: asr
    version_added: 1.0.0
  texts:
    description: What is read aloud or translated, one sentence each; a few English ones where left out.
    type: list
    elements: str
    version_added: 1.0.0
  text_seconds:
    description:
      - A caller of synthesis or translation gives a text so often. The latency of a text is the time to its first
        audio, or to its translation.
    type: float
    default: 3
    version_added: 1.0.0
  voice:
    description: Voice of a synthesis; the server's first one where left out.
    type: str
    version_added: 1.0.0
  target_language_code:
    description: Language that is translated into; O(language_code) is the texts' own.
    type: str
    default: de-DE
    version_added: 1.0.0
  route_host:
    description: Name that the load balancer's route answers to, where it is not that of O(endpoint).
    type: str
  watch_cluster:
    description:
      - Whether to watch the service's replicas, pods and metrics. Without it only O(endpoint) is needed, and the report
        has no replicas.
    type: bool
    default: true
  profile:
    description:
      - Steps that follow each other. Streams that run when the level falls end by themselves.
      - Either this or O(trace_file) is needed.
    type: list
    elements: dict
    suboptions:
      streams:
        description: How many streams are in flight in this step.
        type: int
        required: true
      duration:
        description: Seconds that the step lasts.
        type: float
        required: true
      ramp:
        description: Seconds at the begin of the step in which the level moves from the step before to this one.
        type: float
        default: 0
  trace_file:
    description:
      - A CSV file that says what callers do, in place of O(profile). Times are seconds from the begin of the test.
      - With the first line C(seconds,streams) each further line says how many streams are wanted from then on; the
        last one says when the trace ends.
      - With the first line C(start,length) each further line is one call, namely when it begins and how many seconds it
        lasts. A call that fails is not made again.
    type: path
  tail_seconds:
    description:
      - For how many seconds after the profile the service is watched at most, until it is back at its smallest size.
      - With V(0) the test ends when the last stream has ended.
    type: float
    default: 300
  stream_seconds:
    description:
      - The longest stream, in seconds of audio.
    type: float
    default: 20
  stream_distribution:
    description:
      - How long streams are. With V(spread) lengths are spread evenly from half of O(stream_seconds) to all of it, so
        that streams do not end all at once. With V(fixed) all are as long as that.
      - With V(lognormal) most are short and a few are very long, as calls are. See O(stream_median_seconds) and
        O(stream_sigma); none is longer than O(stream_seconds).
      - The calls of a trace have lengths of their own.
    type: str
    choices: [spread, fixed, lognormal]
    default: spread
  stream_median_seconds:
    description: Half of the streams are shorter than this, with O(stream_distribution=lognormal).
    type: float
    default: 60
  stream_sigma:
    description:
      - How heavy the tail is, with O(stream_distribution=lognormal). The mean is the median times exp(sigma²/2).
    type: float
    default: 1
  stream_grace_seconds:
    description: How many seconds longer than its audio a stream may last before it fails with DEADLINE_EXCEEDED.
    type: float
    default: 30
  objective_ms:
    description: A chunk whose result comes later than this is counted as late.
    type: float
    default: 300
  sample_seconds:
    description: Seconds between two looks at the cluster.
    type: float
    default: 3
  max_streams:
    description: The test opens no more streams than this.
    type: int
    default: 5000
  max_streams_at_once:
    description: A profile or a trace that asks for more streams at the same time than this is refused.
    type: int
    default: 1000
  max_failed_streams:
    description: The module fails, after the report is written, when more streams than this have failed.
    type: int
    default: 0
  max_refused_streams:
    description:
      - The module fails, after the report is written, when more streams than this were refused because the pods were
        full (C(RESOURCE_EXHAUSTED) before a first result). They are not counted as failed.
    type: int
    default: 0
  abort_failed_percent:
    description:
      - The load ends at once when more than this share of the streams that ended in the last 30 seconds have failed.
        At least 20 must have ended. Refused ones are no failures here.
    type: float
    default: 50
  abort_latency_ms:
    description:
      - The load ends at once when the p95 latency of the last 30 seconds is higher than this. Without it no latency
        ends the load.
    type: float
  stream_limit:
    description: Streams that a pod carries, from its calibration. The pods' own limit counts more, where there is one.
    type: int
  label:
    description: Name of this test in a comparison; that of O(report_folder) where left out.
    type: str
  compare_with:
    description:
      - Folders of earlier reports, or their C(summary.json). A page that compares them with this test is written into
        O(report_folder) as C(comparison.html).
    type: list
    elements: path
  expect_replicas:
    description:
      - The way that the number of desired replicas has to go, for example V([1, 3, 1]); each number different from the
        one before it. Sizes passed on the way up or down may be left out.
      - The largest of them has to be reached by ready replicas too. Otherwise the module fails, after the report is
        written.
    type: list
    elements: int
  report_folder:
    description: Folder for the report. It is made if it is not there; a report in it is replaced.
    type: path
    required: true
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.prometheus
  - speechops.riva.speech_endpoint
attributes:
  check_mode:
    description: Checks the input, the cluster and the endpoint, and opens no stream.
    support: full
  diff_mode:
    description: Nothing in the cluster is changed, so there is nothing to show.
    support: none
requirements:
  - matplotlib
  - jinja2
notes:
  - The clocks of this machine and of the cluster are compared; they should agree to a second.
author:
  - speechops.riva maintainers (@speechops)
"""

EXAMPLES = r"""
- name: Forty callers for three minutes
  speechops.riva.speech_load_test:
    kubeconfig: /etc/kubernetes/admin.conf
    audio: [/srv/speech/calls]
    profile:
      - {streams: 5, duration: 60}
      - {streams: 40, duration: 180, ramp: 30}
    expect_replicas: [1, 3, 1]
    report_folder: build/report

- name: Thirty callers who are read to
  speechops.riva.speech_load_test:
    kubeconfig: /etc/kubernetes/admin.conf
    name: riva-tts
    route_host: tts.example.com
    speech: tts
    profile:
      - {streams: 30, duration: 120, ramp: 30}
    report_folder: build/report-tts

- name: The calls of an hour, as they were, against a service in use
  speechops.riva.speech_load_test:
    kubeconfig: /etc/kubernetes/admin.conf
    audio: [/srv/speech/calls]
    trace_file: calls.csv
    max_streams_at_once: 100
    abort_failed_percent: 2
    abort_latency_ms: 500
    report_folder: build/report
"""

RETURN = r"""
headline:
  description: What happened, in one sentence.
  returned: when the test ran
  type: str
  sample: 1 → 3 → 1 replicas, 0 of 312 streams failed, p95 latency 143 ms, 0.1 % of chunks later than 300 ms.
report:
  description: Path of the page.
  returned: when the test ran
  type: str
  sample: /root/build/report/index.html
comparison:
  description: Path of the page that compares this test with earlier ones.
  returned: with O(compare_with), when the test ran
  type: str
  sample: /root/build/report/comparison.html
summary:
  description: All figures, as in C(summary.json).
  returned: success, when the test ran
  type: dict
  sample: {"streams": {"opened": 312, "failed": 0}, "replicas": {"turning_points": [1, 3, 1]}}
endpoint:
  description: Where the streams were sent, or would have been sent.
  returned: success
  type: str
  sample: 172.30.0.200:50051
"""

import asyncio
import os

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.speechops.riva.plugins.module_utils import load_libraries
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Deadline, auth_argument_spec, connect
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError, NotFound
from ansible_collections.speechops.riva.plugins.module_utils.load_audio import AudioError, read_audio
from ansible_collections.speechops.riva.plugins.module_utils.load_cluster import (
    EndpointError,
    Watched,
    endpoint_of,
)
from ansible_collections.speechops.riva.plugins.module_utils.load_guard import Guard
from ansible_collections.speechops.riva.plugins.module_utils.load_options import endpoint_arguments, option_problems
from ansible_collections.speechops.riva.plugins.module_utils.load_profile import (
    DISTRIBUTIONS,
    SPREAD,
    Step,
    TraceError,
    read_trace,
)
from ansible_collections.speechops.riva.plugins.module_utils.load_run import LoadTest, Plan, Recorder, alive
from ansible_collections.speechops.riva.plugins.module_utils.load_streams import (
    EndpointSilent,
    ask_server,
    tls_of,
)
from ansible_collections.speechops.riva.plugins.module_utils.load_texts import (
    ASR,
    SPEECH,
    TEXTS,
    Texts,
    ask_text_server,
)
from ansible_collections.speechops.riva.plugins.module_utils.load_words import console_table, verdict
from ansible_collections.speechops.riva.plugins.module_utils.report_compare import (
    COMPARISON,
    SummaryError,
    named,
    read_summary,
    write_comparison,
)
from ansible_collections.speechops.riva.plugins.module_utils.report_page import (
    PAGE,
    RECORDS,
    write_report,
)
from ansible_collections.speechops.riva.plugins.module_utils.service_streams import Prometheus

SECONDS_FOR_ONE_LOOK = 15
SECONDS_FOR_FIRST_ANSWER = 15


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **auth_argument_spec(),
            **endpoint_arguments(),
            "name": {"type": "str", "default": "riva-asr"},
            "namespace": {"type": "str", "default": "riva"},
            "endpoint": {"type": "str"},
            "balancer_port": {"type": "str", "default": "riva-grpc"},
            "audio": {"type": "list", "elements": "path"},
            "speech": {"type": "str", "choices": list(SPEECH), "default": ASR},
            "texts": {"type": "list", "elements": "str"},
            "text_seconds": {"type": "float", "default": 3},
            "voice": {"type": "str"},
            "target_language_code": {"type": "str", "default": "de-DE"},
            "route_host": {"type": "str"},
            "watch_cluster": {"type": "bool", "default": True},
            "prometheus_namespace": {"type": "str", "default": "monitoring"},
            "prometheus_service": {"type": "str", "default": "kube-prometheus-stack-prometheus"},
            "prometheus_port": {"type": "int", "default": 9090},
            "profile": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "streams": {"type": "int", "required": True},
                    "duration": {"type": "float", "required": True},
                    "ramp": {"type": "float", "default": 0},
                },
            },
            "trace_file": {"type": "path"},
            "tail_seconds": {"type": "float", "default": 300},
            "stream_seconds": {"type": "float", "default": 20},
            "stream_distribution": {"type": "str", "choices": list(DISTRIBUTIONS), "default": SPREAD},
            "stream_median_seconds": {"type": "float", "default": 60},
            "stream_sigma": {"type": "float", "default": 1},
            "stream_grace_seconds": {"type": "float", "default": 30},
            "objective_ms": {"type": "float", "default": 300},
            "sample_seconds": {"type": "float", "default": 3},
            "max_streams": {"type": "int", "default": 5000},
            "max_streams_at_once": {"type": "int", "default": 1000},
            "max_failed_streams": {"type": "int", "default": 0},
            "max_refused_streams": {"type": "int", "default": 0},
            "abort_failed_percent": {"type": "float", "default": 50},
            "abort_latency_ms": {"type": "float"},
            "stream_limit": {"type": "int"},
            "label": {"type": "str"},
            "compare_with": {"type": "list", "elements": "path"},
            "expect_replicas": {"type": "list", "elements": "int"},
            "report_folder": {"type": "path", "required": True},
            "stop_with_process": {"type": "int"},
        },
        required_if=[("speech", ASR, ["audio"])],
        supports_check_mode=True,
    )
    if missing := load_libraries.missing():
        module.fail_json(msg=missing_required_lib(missing[0]), exception=missing[1])
    audio, trace, others = check_input(module)
    watched, endpoint = check_cluster(module) if module.params["watch_cluster"] else (None, module.params["endpoint"])
    check_endpoint(module, endpoint)
    if module.check_mode:
        module.exit_json(changed=False, endpoint=endpoint, msg=f"{endpoint} answers; no stream was opened")
    run(module, audio, trace, others, watched, endpoint)


def check_input(module: AnsibleModule):
    """Check all options before anything is asked or opened."""
    trace, problems = None, []
    try:
        trace = open_trace(module.params["trace_file"])
    except (TraceError, OSError, UnicodeError) as error:
        problems.append(f"trace_file: {module.params['trace_file']}: {error}")
    if not problems:
        problems = option_problems({**module.params, "trace": trace})
    audio, others = None, []
    try:
        others = [read_summary(path) for path in module.params["compare_with"] or []]
    except SummaryError as error:
        problems.append(f"compare_with: {error}")
    try:
        audio = read_audio(module.params["audio"]) if module.params["speech"] == ASR else texts_of(module.params)
    except AudioError as error:
        problems.append(f"audio: {error}")
    folder = module.params["report_folder"]
    if not module.check_mode:
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            problems.append(f"report_folder: {folder} cannot be made: {error.strerror}; name a writable folder")
    if problems:
        lines = [f"  {problem}" for problem in problems]
        hint = "In playbooks/load_test.yml these options are the variables load_test_<option>."
        module.fail_json(msg="\n".join(["wrong input:", *lines, hint]))
    return audio, trace, others


def texts_of(params: dict) -> Texts:
    return Texts(
        tuple(params["texts"] or TEXTS),
        params["speech"],
        params["language_code"],
        params["target_language_code"],
        params["voice"] or "",
    )


def open_trace(path: str | None) -> dict | None:
    if not path:
        return None
    with open(path, encoding="utf-8-sig") as file:
        return read_trace(file)


def check_cluster(module: AnsibleModule):
    """Look at the service once and find the endpoint."""
    params = module.params
    try:
        cluster = connect(module, Deadline(SECONDS_FOR_ONE_LOOK))
        where = (params[f"prometheus_{key}"] for key in ("namespace", "service", "port"))
        watched = Watched(
            cluster.get, params["namespace"], params["name"], Prometheus(*where), params["chunk_duration_ms"]
        )
        watched.sample()
        endpoint = params["endpoint"]
        if not endpoint:
            namespace, service = params["balancer_namespace"], params["balancer_service"]
            found = cluster.get(f"/api/v1/namespaces/{namespace}/services/{service}")
            endpoint = endpoint_of(found, params["balancer_port"])
    except NotFound as error:
        module.fail_json(
            msg=f"{error}; install the service first, or name what to load: namespace and name (now "
            f"{params['namespace']}/{params['name']}), endpoint or balancer_namespace and balancer_service"
        )
    except ClusterError as error:
        module.fail_json(msg=f"{error}; {error.remedy}" if error.remedy else str(error))
    except EndpointError as error:
        module.fail_json(msg=f"{error} (option endpoint)")

    def sample():
        cluster.deadline = Deadline(SECONDS_FOR_ONE_LOOK)
        return watched.sample()

    return sample, endpoint


def check_endpoint(module: AnsibleModule, endpoint: str) -> None:
    speech, way = module.params["speech"], (module.params["route_host"] or "", tls_of(module.params))
    try:
        if speech == ASR:
            asyncio.run(ask_server(endpoint, SECONDS_FOR_FIRST_ANSWER, *way))
        else:
            asyncio.run(ask_text_server(endpoint, SECONDS_FOR_FIRST_ANSWER, speech, *way))
    except EndpointSilent as error:
        module.fail_json(
            msg=f"no speech service answers at {endpoint}: {error}; check that a pod of "
            f"{module.params['namespace']}/{module.params['name']} is ready and that the load balancer's route "
            "leads to it, or name another address (option endpoint)"
        )


def run(module: AnsibleModule, audio, trace, others, sample, endpoint: str) -> None:
    params = module.params
    plan = Plan(
        endpoint=endpoint,
        steps=[Step(**step) for step in params["profile"] or []],
        trace=trace,
        host=params["route_host"] or "",
        tls=tls_of(params),
        label=params["label"] or "",
        **{
            name: params[name]
            for name in (
                "namespace",
                "name",
                "tail_seconds",
                "chunk_duration_ms",
                "stream_seconds",
                "stream_distribution",
                "stream_median_seconds",
                "stream_sigma",
                "stream_grace_seconds",
                "objective_ms",
                "sample_seconds",
                "max_streams",
                "language_code",
                "stream_limit",
                "speech",
                "text_seconds",
            )
        },
    )
    folder = params["report_folder"]
    recorder = Recorder(os.path.join(folder, RECORDS))
    guard = Guard(params["abort_failed_percent"], params["abort_latency_ms"])
    try:
        test = LoadTest(plan, audio, recorder, sample, guard.look)
        reason = asyncio.run(test.run(alive(params["stop_with_process"])))
    finally:
        recorder.close()
    summary = write_report(folder, recorder.records)
    result = {
        "changed": True,
        "headline": summary["headline"],
        "report": os.path.join(os.path.abspath(folder), PAGE),
        "table": console_table(summary),
    }
    if others:
        result["comparison"] = write_comparison(folder, [*others, named(summary, folder)], COMPARISON)
    if reason.startswith(("interrupted", "aborted")):
        module.fail_json(msg=f"the load test was {reason}; what it saw is in {result['report']}", **result)
    problems = verdict(summary, params["max_failed_streams"], params["expect_replicas"], params["max_refused_streams"])
    if problems:
        module.fail_json(msg="; ".join([*problems, f"see {result['report']}"]), **result)
    module.exit_json(summary=summary, endpoint=endpoint, **result)


if __name__ == "__main__":
    main()
