"""When a load test gives up."""

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.load_guard import Guard


def seconds(rows):
    """Windows of a second each: finished, failed and refused in that second, and latencies."""
    total = {"finished": 0, "failed": 0, "refused": 0}
    for t, (finished, failed, refused, latency) in enumerate(rows, start=1):
        for key, count in zip(total, (finished, failed, refused), strict=True):
            total[key] += count
        yield {"t": float(t), "latency_ms": latency, **total}


def reason(guard, rows):
    return next((said for window in seconds(rows) if (said := guard.look(window))), "")


@pytest.mark.parametrize(
    ("percent", "rows", "aborts"),
    [
        (50, [(9, 10, 0, [])], False),  # fewer than 20 ended
        (50, [(10, 10, 0, [])], False),  # not more than may
        (50, [(9, 11, 0, [])], True),
        (50, [(0, 0, 40, [])], False),  # refused is not failed
        (50, [(0, 21, 20, [])], True),
        (2, [(97, 3, 0, [])], True),
        (None, [(0, 100, 0, [])], False),
        # What is long ago does not count: first 30 good ones, 40 s later 20 bad ones.
        (50, [(30, 0, 0, []), *[(0, 0, 0, [])] * 40, (0, 20, 0, [])], True),
        # Nor does it count against the service: bad ones long ago, few since.
        (50, [(19, 0, 0, []), *[(0, 0, 0, [])] * 40, (19, 0, 0, [])], False),
    ],
)
def test_the_share_of_failed_streams(percent, rows, aborts):
    said = reason(Guard(failed_percent=percent), rows)
    assert bool(said) is aborts
    assert not aborts or "abort_failed_percent" in said


@pytest.mark.parametrize(
    ("limit", "rows", "aborts"),
    [
        (500, [(0, 0, 0, [600.0] * 99)], False),  # too few to say
        (500, [(0, 0, 0, [600.0] * 100)], True),
        (500, [(0, 0, 0, [100.0] * 96 + [600.0] * 4)], False),
        (500, [(0, 0, 0, [500.0] * 100)], False),
        (None, [(0, 0, 0, [9000.0] * 100)], False),
        (500, [(0, 0, 0, [600.0] * 50), *[(0, 0, 0, [])] * 40, (0, 0, 0, [600.0] * 50)], False),
    ],
)
def test_the_latency(limit, rows, aborts):
    said = reason(Guard(latency_ms=limit), rows)
    assert bool(said) is aborts
    assert not aborts or "abort_latency_ms" in said
