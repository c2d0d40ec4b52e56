# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.speechops.riva.plugins.filter.riva import FilterModule

FILTERS = FilterModule().filters()
FOLDER = Path(__file__).parents[3] / "plugins" / "filter"


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_is_documented(name):
    page = yaml.safe_load((FOLDER / f"{name}.yml").read_text())
    assert page["DOCUMENTATION"]["name"] == name
    assert f"speechops.riva.{name}" in page["EXAMPLES"]


@pytest.mark.parametrize(
    ("name", "value", "options", "expected"),
    [
        ("quantity", 1.5, {}, "1500m"),
        ("worst_status", [{"status": "ok"}, {"status": "failed"}], {}, "failed"),
        ("findings_table", [], {}, "no findings"),
        (
            "hpa_metrics",
            20,
            {"metric": "m"},
            [
                {
                    "type": "Pods",
                    "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "20"}},
                }
            ],
        ),
    ],
)
def test_filters(name, value, options, expected):
    assert FILTERS[name](value, **options) == expected


def test_rules_and_query_come_from_the_rule_set():
    (rule,) = FILTERS["adapter_rules"]("queue_time", scrape_interval=5)
    assert "[20s]" in rule["metricsQuery"]
    assert 'by (service) (rate(nv_inference_queue_duration_us{namespace="riva"}' in FILTERS["queue_time_query"](
        "riva", by=["service"]
    )


@pytest.mark.parametrize(
    ("name", "value", "options", "text"),
    [
        ("adapter_rules", "best", {}, "adapter_rules: preset is 'best'"),
        ("adapter_rules", "queue_time", {"windw": 3}, "adapter_rules: .*windw"),
        ("quantity", "fast", {}, "quantity: target is 'fast'"),
        ("findings_table", 3, {}, "findings_table: "),
        ("worst_status", ["x"], {}, "worst_status: "),
    ],
)
def test_a_wrong_input_names_the_filter(name, value, options, text):
    with pytest.raises(AnsibleFilterError, match=text):
        FILTERS[name](value, **options)
