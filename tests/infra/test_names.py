"""Checks that the names of two stages, and of one stage in two Regions, do not collide."""

from __future__ import annotations

import pytest

from tests.infra.account.assembly import Assembly
from tests.infra.account.names import NAMED, collisions, unlisted
from tests.infra.account.variants import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_every_name_that_a_template_fixes_is_in_the_table(variants: dict[str, Assembly], name: str) -> None:
    assert unlisted(variants[name]) == []


def test_two_stages_of_one_account_share_no_name(variants: dict[str, Assembly]) -> None:
    assert collisions([variants["dev"], variants["prod"], variants["everything"]], "Region") == []


@pytest.mark.parametrize("name", VARIANTS)
def test_one_stage_in_two_regions_shares_no_name(variants: dict[str, Assembly], name: str) -> None:
    assert collisions([variants[name], variants[name].in_region("eu-west-1")], "account") == []


def test_a_collision_is_named(variants: dict[str, Assembly]) -> None:
    twice = collisions([variants["dev"], variants["dev"]], "Region")
    assert "stack Maskdrop-dev" in twice
    assert [one for one in twice if one.startswith("AWS::SageMaker::Endpoint ")]
    assert {one.split()[0] for one in twice} - {"stack"} <= NAMED.keys()
