"""Shapes, mixes and settings of the load test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.load.mix import vendor_requests
from tests.load.overload import PHASES, settings
from tests.load.settings import LoadSettings, mixes
from tests.load.shapes import SHAPES


@pytest.mark.parametrize(
    ("shape", "users"),
    [
        ("steady", [10, 10, 10, 10, 10]),
        ("soak", [10, 10, 10, 10, 10]),
        ("step", [2, 4, 6, 8, 10]),
        ("spike", [0, 10, 0, 0, 0]),
    ],
)
def test_a_shape_gives_the_users_at_each_fifth_of_the_duration(shape: str, users: list[int]) -> None:
    assert [SHAPES[shape](fraction, 10) for fraction in (0.05, 0.25, 0.45, 0.65, 0.85)] == users


def test_settings_are_the_same_for_workers_that_read_them_from_the_environment() -> None:
    written = LoadSettings(
        shape="spike", minutes=10, users=20, mix="drop", rates={"DropFolderUser": 2.5}, time_lapse=60, settle_s=30
    )
    assert LoadSettings.from_env(written.to_env()) == written
    assert LoadSettings.from_env({}) == LoadSettings()


def test_an_unknown_mix_is_an_error_that_lists_the_mixes() -> None:
    with pytest.raises(ValueError, match="default, drop, vendors"):
        LoadSettings.from_env({"LOAD_MIX": "dorp"})


def test_every_mix_names_classes_of_users() -> None:
    source = ast.parse((Path(__file__).parents[2] / "load" / "locustfile.py").read_text())
    classes = {one.name for one in source.body if isinstance(one, ast.ClassDef)}
    for name, mix in mixes().items():
        assert mix.users.keys() <= classes, name


def test_the_vendor_protocols_of_the_mix_have_different_paths() -> None:
    assert len(vendor_requests(b"photo")) == 4


def test_the_phases_of_the_overload_are_multiples_of_the_measured_capacity() -> None:
    capacity = {"DropFolderUser": 2.0, "ImageUser": 1.0}
    measured, below, above = (settings(PHASES[index], 10, capacity) for index in (1, 2, 3))
    assert (measured.rates, measured.minutes) == ({}, 2)
    assert below.rates == {"DropFolderUser": 1.6, "ImageUser": 0.8}
    assert above.rates == {"DropFolderUser": 6.0, "ImageUser": 3.0}
    assert above.users == 200  # 9 requests a second of up to 30 s need 270
    assert (below.minutes, above.minutes) == (10, 5)
    assert above.settle_s >= 5 * 60 * 2  # twice the capacity is left after the load
    assert (below.limits.refused, above.limits.refused) == (0, 1)
