# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""validate_custom_metric where KEDA has taken its HPA away: the ScaledObject is the cause. The rest is on the lab."""

import pytest

from tests.unit.plugins.whole_chain import HPA, chain, check_custom_metric, quick

__all__ = ["chain", "quick"]  # Fixtures.

SCALED = "/apis/keda.sh/v1alpha1/namespaces/riva/scaledobjects/riva-asr"


def scaled(**conditions):
    return {
        "metadata": {"name": "riva-asr", "namespace": "riva"},
        "spec": {"fallback": {"replicas": 1}, "triggers": []},
        "status": {"conditions": [{"type": kind, **said} for kind, said in conditions.items()]},
    }


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({"Ready": {"status": "True"}, "Paused": {"status": "True"}}, "is paused"),
        ({"Paused": {"status": "True"}}, "is paused"),
        ({"Ready": {"status": "False", "reason": "ScaledObjectCheckFailed", "message": "no target"}}, "no target"),
    ],
)
def test_the_scaled_object_is_named_where_its_hpa_is_gone(chain, run_module, conditions, words):
    chain.routes.pop(HPA)
    chain.routes[SCALED] = scaled(**conditions)
    result = check_custom_metric(run_module, chain, fail_on="never")
    assert result["first_broken"] == "scaled_object"
    by_check = {finding["check"]: finding for finding in result["findings"]}
    assert words in by_check["scaled_object"]["message"]
    assert by_check["scaled_object"]["remedy"]
    assert "KEDA has taken its HPA away" in by_check["hpa"]["message"]


@pytest.mark.parametrize("found", [None, scaled(Ready={"status": "True"})])
def test_an_hpa_that_is_gone_for_another_reason_is_said_as_before(chain, run_module, found):
    chain.routes.pop(HPA)
    if found:
        chain.routes[SCALED] = found
    result = check_custom_metric(run_module, chain, fail_on="never")
    assert [finding["check"] for finding in result["findings"]] == ["hpa"]
    assert "does not exist" in result["findings"][0]["message"]
