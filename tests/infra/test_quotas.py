"""Checks the stages against the quotas of a new account and the fixed limits of the services."""

from __future__ import annotations

import pytest

from tests.infra.account.assembly import Assembly
from tests.infra.account.quotas import LIMITS, NEW_ACCOUNT, exceeded, is_gpu
from tests.infra.account.variants import VARIANTS


@pytest.mark.parametrize("names", [["dev"], ["serverless"], ["off"], ["waf"]])
def test_a_serverless_stage_fits_in_a_new_account(variants: dict[str, Assembly], names: list[str]) -> None:
    assert exceeded([variants[name] for name in names], NEW_ACCOUNT) == []


def test_the_endpoints_of_two_serverless_stages_fit_in_a_new_account(variants: dict[str, Assembly]) -> None:
    of_endpoints = [one for one in NEW_ACCOUNT if one.name.startswith("SageMaker")]
    assert exceeded([variants["dev"], variants["serverless"]], of_endpoints) == []


@pytest.mark.parametrize(
    ("name", "quota"), [("gpu", "GPU instances"), ("cpu", "CPU instances"), ("everything", "reserved executions")]
)
def test_the_quota_that_a_stage_needs_is_named(variants: dict[str, Assembly], name: str, quota: str) -> None:
    assert [one for one in exceeded([variants[name]], NEW_ACCOUNT) if quota in one]


def test_three_serverless_stages_exceed_the_concurrency_of_a_new_account(variants: dict[str, Assembly]) -> None:
    stages = [variants[name] for name in ("dev", "serverless", "prod")]
    assert [one for one in exceeded(stages, NEW_ACCOUNT) if "serverless endpoints" in one]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_stage_is_within_the_fixed_limits(variants: dict[str, Assembly], name: str) -> None:
    assert exceeded([variants[name]], LIMITS) == []


def test_the_families_g_and_p_have_gpus() -> None:
    assert [is_gpu(one) for one in ("ml.g6.xlarge", "ml.p5.48xlarge", "ml.c6i.xlarge", "ml.m5.large")] == [
        True, True, False, False,
    ]  # fmt: skip
