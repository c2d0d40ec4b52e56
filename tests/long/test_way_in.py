"""What the way in holds: long streams, many at once, dead pods, updates under load, bad clients. See docs/way-in.md.

`RECORD=file` adds each figure to a file, one JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections import Counter
from pathlib import Path

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.exposure import is_ready
from ansible_collections.speechops.riva.plugins.module_utils.outside_calls import PREFACE

from tests.integration.running_lab import KUBECTL, PLAYBOOK, REPOSITORY
from tests.integration.test_site import extra
from tests.integration.way_in import (
    Outcome,
    Service,
    Traffic,
    address_of,
    aio_channel,
    at_once,
    call_code,
    kill,
    lost,
    memory_mib,
    stream,
    traefik_pods,
    way_of,
)


def record(what: str, **figures) -> None:
    line = json.dumps({"what": what, **figures})
    print(line)
    if file := os.environ.get("RECORD"):
        with open(file, "a") as out:
            out.write(line + "\n")


# Seconds in which calls are watched after a scale-up of full pods: longer than an answer of DNS lasts.
WATCHED = 40


@pytest.fixture(scope="module")
def service(installed, tmp_path_factory):
    """Three pods of a small speech service; each stream's answer names its pod."""
    made = Service(installed)
    made.install(tmp_path_factory.mktemp("way"), streams={"limit": 1000})
    yield made
    made.remove()


@pytest.fixture(scope="module")
def plain(installed, tmp_path_factory):
    """The same without HAProxy in its pods: what Traefik talks to is the server itself, with the chart's own probes."""
    made = Service(installed, "plain")
    made.install(tmp_path_factory.mktemp("plain"), probes={})
    yield made
    made.remove()


def test_long_streams_half_of_them_silent(service):
    """70 s and 150 s at the same time: nothing on the way ends them."""
    address = address_of(service.lab)

    async def both():
        opened = aio_channel(address, service.host)
        try:
            return await asyncio.gather(*(stream(opened, Outcome(seconds)) for seconds in (70, 70, 150, 150)))
        finally:
            await opened.close()

    outcomes = asyncio.run(both())
    record("long streams", seconds=[one.seconds for one in outcomes], taken=[one.taken for one in outcomes])
    assert lost(outcomes) == []


@pytest.mark.parametrize("connections", [1, 300])
def test_300_streams_at_once(service, connections):
    outcomes = asyncio.run(at_once(address_of(service.lab), service.host, 300, 20, connections))
    slowest = max(one.opened_after for one in outcomes)
    record(
        "300 streams", connections=connections, whole=sum(one.whole for one in outcomes), first_answer=round(slowest, 2)
    )
    assert lost(outcomes) == []
    # None waited for another one's end.
    assert slowest < 15


def test_spread_over_three_pods(service):
    """Active streams of each pod, looked at each second for a minute once the coming and going is steady."""
    ratios = []

    async def watch(traffic: Traffic) -> None:
        await asyncio.sleep(25)
        for _ in range(60):
            await asyncio.sleep(1)
            active = traffic.active()
            assert len(active) == 3
            ratios.append(max(active.values()) * 3 / sum(active.values()))

    traffic = Traffic(address_of(service.lab), service.host, streams=90, seconds=20)
    outcomes = asyncio.run(traffic.during(watch))
    mean = sum(ratios) / len(ratios)
    record("spread", streams=len(outcomes), mean=round(mean, 3), worst=round(max(ratios), 3))
    assert lost(outcomes) == []
    assert mean <= 1.10


def test_new_streams_after_a_scale_up(service):
    """Two busy pods and a third that is new: how the next streams spread."""
    deployment = f"deployment/{service.name}"
    status = ("rollout", "status", deployment, "-n", "riva", "--timeout=120s")
    kubectl = kubectl_of(service.lab)
    address = address_of(service.lab)

    async def whole():
        await command(*kubectl, "scale", deployment, "--replicas=2", "-n", "riva")
        await command(*kubectl, *status)
        await asyncio.sleep(12)
        old = asyncio.create_task(at_once(address, service.host, 60, 55, 6))
        await asyncio.sleep(5)
        await command(*kubectl, "scale", deployment, "--replicas=3", "-n", "riva")
        await command(*kubectl, *status)
        await asyncio.sleep(3)
        new = await at_once(address, service.host, 60, 8, 6)
        return await old, new

    old, new = asyncio.run(whole())
    before, after = (Counter(one.pod for one in outcomes) for outcomes in (old, new))
    (fresh,) = set(after) - set(before)
    record("scale-up", before=sorted(before.values()), fresh=after[fresh], others=[after[pod] for pod in before])
    assert lost([*old, *new]) == []
    assert after[fresh] >= 15


# How kubeadm sets up CoreDNS: answers last half a minute.
KUBEADM_DNS = """.:53 {
  errors
  health
  ready
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    ttl 30
  }
  cache 30
  loadbalance
}
"""


def set_dns(lab, corefile: str) -> None:
    patch = json.dumps({"data": {"Corefile": corefile}})
    lab.kubectl("patch", "configmap/coredns", "-n", "kube-system", "-p", patch)
    for step in ("restart", "status"):
        lab.kubectl("rollout", step, "deployment/coredns", "-n", "kube-system", timeout=200)


@pytest.fixture(scope="module")
def limited(installed, tmp_path_factory):
    """Two pods that take thirty streams each, on a cluster whose DNS keeps answers for half a minute."""
    before = installed.get("configmap", "coredns", "-n", "kube-system")["data"]["Corefile"]
    set_dns(installed, KUBEADM_DNS)
    made = Service(installed, "limited")
    made.install(tmp_path_factory.mktemp("limited"), pods=2, streams={"limit": 30})
    yield made
    made.remove()
    set_dns(installed, before)


def ready_pods(service: Service) -> list[str]:
    return [pod["metadata"]["name"] for pod in service.pods() if is_ready(pod)]


async def filled(channel, streams: int, seconds: float) -> list[asyncio.Task]:
    """So many streams that run: what a full pod refused is opened anew."""
    outcomes, tasks = [], []
    for _ in range(12):
        for _ in range(streams - sum(one.open for one in outcomes)):
            outcomes.append(Outcome(seconds))
            tasks.append(asyncio.create_task(stream(channel, outcomes[-1])))
            await asyncio.sleep(0.05)
        # With the first answer a stream is open.
        await asyncio.sleep(4)
        if sum(one.open for one in outcomes) == streams:
            return [task for task, one in zip(tasks, outcomes, strict=True) if one.open]
    pytest.fail(f"{sum(one.open for one in outcomes)} of {streams} streams run")


def test_new_streams_after_a_scale_up_of_full_pods(limited):
    """Two pods at their limit turn unready once they know of a third that has room: all that is new goes to it.

    Looked at with four calls a second, from the moment at which the third is ready.
    """
    deployment = f"deployment/{limited.name}"
    kubectl = kubectl_of(limited.lab)
    address = address_of(limited.lab)

    async def unready_after(began: float) -> float:
        while len(await asyncio.to_thread(ready_pods, limited)) > 1:
            if time.monotonic() - began > 50:
                return -1
            await asyncio.sleep(0.5)
        return time.monotonic() - began

    async def calls(channel, began: float) -> list[tuple[float, Outcome]]:
        async def one(after: float):
            await asyncio.sleep(began + after - time.monotonic())
            return after, await stream(channel, Outcome(4), patience=5)

        return await asyncio.gather(*(one(number / 4) for number in range(WATCHED * 4)))

    async def whole():
        channel = aio_channel(address, limited.host)
        old = await filled(channel, 60, 130)
        # With nobody who has room they stay, to refuse.
        assert len(await asyncio.to_thread(ready_pods, limited)) == 2
        await command(*kubectl, "scale", deployment, "--replicas=3", "-n", "riva")
        await command(*kubectl, "rollout", "status", deployment, "-n", "riva", "--timeout=120s")
        began = time.monotonic()
        unready, new = await asyncio.gather(unready_after(began), calls(channel, began))
        old = await asyncio.gather(*old)
        await channel.close()
        return old, new, unready

    old, new, unready = asyncio.run(whole())
    refused = [after for after, one in new if not one.whole]
    before, after = (Counter(one.pod for one in outcomes) for outcomes in (old, [one for _, one in new if one.whole]))
    record(
        "scale-up of full pods",
        unready_after=round(unready, 1),
        before=sorted(before.values()),
        calls=len(new),
        refused=len(refused),
        last_refused_after=max(refused, default=0),
        why=Counter(lost([one for _, one in new])),
    )
    assert lost(old) == []
    assert sorted(before.values()) == [30, 30]
    assert set(after).isdisjoint(before)
    assert max(refused, default=0) < 10


async def sixty_calls(service: Service) -> list[Outcome]:
    """Two a second; a call has 5 s."""
    address = address_of(service.lab)

    async def one(number: int) -> Outcome:
        opened = aio_channel(address, service.host)
        try:
            await asyncio.sleep(number / 2)
            return await stream(opened, Outcome(3), patience=2)
        finally:
            await opened.close()

    return await asyncio.gather(*(one(number) for number in range(60)))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_one_of_three_pods_dies(plain, end):
    victim = plain.pods()[0]
    try:
        kill(victim, "standins.riva", end)
        outcomes = asyncio.run(sixty_calls(plain))
    finally:
        if end == signal.SIGSTOP:
            kill(victim, "standins.riva", signal.SIGCONT)
    failed = lost(outcomes)
    record("a pod dies", how=end.name, failed=len(failed), of=len(outcomes), why=Counter(failed))
    plain.kubectl("rollout", "status", "deployment/plain", "--timeout=120s")
    assert len(failed) <= 2, failed


def kubelet_of(pod: dict) -> int:
    """The process of the kubelet on a pod's node."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            words = (folder / "cmdline").read_bytes().decode().split("\0") if (folder / "cmdline").exists() else [""]
            if words[0].endswith("/kubelet") and f"--hostname-override={pod['spec']['nodeName']}" in words:
                return int(folder.name)
    raise LookupError(f"no kubelet of {pod['spec']['nodeName']}")


def test_a_pod_dies_and_kubernetes_does_not_hear_of_it(plain):
    """Its node's kubelet hangs: Traefik alone finds out, by calls that fail (passive health check)."""
    victim = plain.pods()[0]
    kubelet = kubelet_of(victim)
    os.kill(kubelet, signal.SIGSTOP)
    try:
        kill(victim, "standins.riva")
        outcomes = asyncio.run(sixty_calls(plain))
        assert is_ready(next(pod for pod in plain.pods() if pod["metadata"]["uid"] == victim["metadata"]["uid"]))
    finally:
        os.kill(kubelet, signal.SIGCONT)
    failed = lost(outcomes)
    record("a pod dies unheard", failed=len(failed), of=len(outcomes), why=Counter(failed))
    plain.kubectl("rollout", "status", "deployment/plain", "--timeout=120s")
    # One call in ten seconds, or two at a time, tries whether it is back. Without the check a dead pod draws calls.
    assert len(failed) <= 8, failed


async def command(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *words, cwd=REPOSITORY, stdin=-3, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()


def kubectl_of(lab):
    return (str(KUBECTL), f"--kubeconfig={lab.kubeconfig}")


def under_load(service, name, *steps):
    """At least 500 streams while the steps run one after another."""

    async def work(traffic: Traffic) -> None:
        kubectl = kubectl_of(service.lab)
        await asyncio.sleep(20)
        for step in steps:
            await command(*(() if step[0] == PLAYBOOK else kubectl), *step)
        while len(traffic.outcomes) < 500:
            await asyncio.sleep(1)

    traffic = Traffic(address_of(service.lab), service.host, streams=120, seconds=20)
    outcomes = asyncio.run(traffic.during(work))
    failed = lost(outcomes)
    record(name, streams=len(outcomes), lost=len(failed), why=Counter(failed))
    assert len(outcomes) >= 500
    assert failed == []


def test_rolling_update_and_scale_down_under_load(service):
    deployment = f"deployment/{service.name}"
    status = ("rollout", "status", deployment, "-n", "riva", "--timeout=200s")
    under_load(
        service,
        "Riva: rolling update, then three pods to two, to three",
        ("rollout", "restart", deployment, "-n", "riva"),
        status,
        ("scale", deployment, "--replicas=2", "-n", "riva"),
        status,
        ("scale", deployment, "--replicas=3", "-n", "riva"),
        status,
    )


def test_traefiks_upgrade_and_restart_under_load(service):
    """The role installs another form of it, then kubectl starts it anew, then the role puts it back."""
    status = ("rollout", "status", "deployment/traefik", "-n", "traefik", "--timeout=200s")
    restart = ("rollout", "restart", "deployment/traefik", "-n", "traefik")
    play = (PLAYBOOK, "-e", f"lab_name={service.lab.name}", "site.yml", "--tags", "traefik")
    other = extra(traefik_resources={"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "1Gi"}})
    before = {pod["metadata"]["name"] for pod in traefik_pods(service.lab)}
    under_load(service, "Traefik: upgrade, restart, upgrade", (*play, *other), restart, status, play)
    assert not before & {pod["metadata"]["name"] for pod in traefik_pods(service.lab)}


# The beginning of HTTP/2, and of a frame of 100 bytes with a call's headers that never come.
BEGINNING = PREFACE + b"\0\0\x64\x01\x04\0\0\0\x01"


@pytest.mark.parametrize("words", [b"", BEGINNING], ids=["say_nothing", "begin_a_call"])
def test_many_connections_half_open(service, words):
    """10,000 half-open connections from one source: others are served, and the memory that they take is known."""
    lab = service.lab
    host, port = address_of(lab).rsplit(":", 1)
    (pod,) = traefik_pods(lab)
    before = memory_mib(pod)
    idle = []
    try:
        for _ in range(10_000):
            idle.append(socket.create_connection((host, int(port)), timeout=5))
            idle[-1].sendall(words)
        time.sleep(2)
        outcomes = asyncio.run(at_once(f"{host}:{port}", service.host, 30, 5, 30))
        during = memory_mib(pod)
    finally:
        for one in idle:
            one.close()
    record(
        "10,000 half-open connections",
        said=len(words),
        before_mib=round(before),
        during_mib=round(during),
        whole=sum(o.whole for o in outcomes),
    )
    assert lost(outcomes) == []
    assert during - before < 400
    assert traefik_pods(lab)[0]["metadata"]["name"] == pod["metadata"]["name"]


def test_bad_calls_among_good_ones(service):
    """Wrong host, and metadata that is too large: refused clearly, while streams go on."""
    lab = service.lab
    rule = ("patch", "ingressroute/riva-asr", "--type=json", "-p")
    path = "/spec/routes/0/match"
    before = lab.get("ingressroute", "riva-asr", "-n", "riva")["spec"]["routes"][0]["match"]
    # The installed service takes any host name otherwise.
    service.kubectl(*rule, json.dumps([{"op": "replace", "path": path, "value": "Host(`asr.example.com`)"}]))
    try:
        bad_calls(lab, service)
    finally:
        service.kubectl(*rule, json.dumps([{"op": "replace", "path": path, "value": before}]))


def bad_calls(lab, service):

    async def bad(_traffic: Traffic) -> None:
        await asyncio.sleep(3)
        codes = await asyncio.to_thread(
            lambda: (
                call_code(way_of(lab, "nobody.example.com")),
                call_code(way_of(lab, service.host), metadata=(("x-large", "x" * 100_000),)),
                call_code(way_of(lab, service.host)),
            )
        )
        record("bad calls", wrong_host=codes[0], large_metadata=codes[1], good=codes[2])
        assert codes[0] == "UNIMPLEMENTED"
        assert codes[1] not in ("OK", "DEADLINE_EXCEEDED")
        assert codes[2] == "OK"

    outcomes = asyncio.run(Traffic(address_of(lab), service.host, streams=10, seconds=5).during(bad))
    assert lost(outcomes) == []
