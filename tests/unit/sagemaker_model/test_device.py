import importlib.util
import sys
from types import SimpleNamespace

import pytest

from sagemaker_model.device import NoGpu, choose


def torch(monkeypatch: pytest.MonkeyPatch, *, cuda: str | None, available: bool) -> None:
    """A torch that says what it is told to say."""
    fake = SimpleNamespace(version=SimpleNamespace(cuda=cuda), cuda=SimpleNamespace(is_available=lambda: available))
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())


def test_the_cpu_is_taken_when_it_is_wanted_whatever_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    torch(monkeypatch, cuda="13.0", available=True)
    assert choose("cpu", require_gpu=False) == "cpu"


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch(monkeypatch, cuda="13.0", available=True)
    assert choose("auto", require_gpu=False) == "cuda"


@pytest.mark.parametrize(
    ("cuda", "available", "reason"), [(None, False, "built for the CPU"), ("13.0", False, "finds no CUDA device")]
)
def test_without_a_gpu_auto_takes_the_cpu_and_who_requires_one_is_told_why_there_is_none(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, available: bool, reason: str
) -> None:
    torch(monkeypatch, cuda=cuda, available=available)
    assert choose("auto", require_gpu=False) == "cpu"
    for wanted in ("cpu", "auto", "cuda"):
        with pytest.raises(NoGpu, match=reason):
            choose(wanted, require_gpu=True)
    with pytest.raises(NoGpu, match=reason):
        choose("cuda", require_gpu=False)


def test_without_torch_a_required_gpu_is_missed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert choose("auto", require_gpu=False) == "cpu"
    with pytest.raises(NoGpu, match="torch is not installed"):
        choose("auto", require_gpu=True)
