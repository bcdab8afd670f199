from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import keys
from local.keys import Deployment
from maskdrop.spending import cap_of
from tests.fakes import FakeRegistry


class Gateway:
    def create_api_key(self, **_: Any) -> dict[str, str]:
        return {"id": "k1"}

    def create_usage_plan_key(self, **_: Any) -> None: ...


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    registry = FakeRegistry()

    @contextmanager
    def deployment(_stage: str | None) -> Iterator[Deployment]:
        yield Deployment(registry, Gateway(), "plan", "dev")

    monkeypatch.setattr(keys, "deployment", deployment)
    return registry


def run(*arguments: str) -> str:
    result = CliRunner().invoke(keys.app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_spending_cap_of_an_owner_is_set_and_removed(registry: FakeRegistry) -> None:
    assert "a cap of $25.50 a month" in run("cap", "shop", "25.5")
    assert cap_of(registry, "shop", 10) == 25.5
    assert "Spending cap of shop: $25.50 a month." in run("list")
    assert "the stage's cap" in run("cap", "shop")
    assert cap_of(registry, "shop", 10) == 10
    assert "Spending cap" not in run("list")


def test_a_key_may_be_created_with_the_spending_cap_of_its_owner(registry: FakeRegistry) -> None:
    run("create", "the shop", "--owner", "shop", "--edit-usd-per-month", "3")
    run("create", "another", "--owner", "ann")
    assert (cap_of(registry, "shop", 10), cap_of(registry, "ann", 10)) == (3, 10)
