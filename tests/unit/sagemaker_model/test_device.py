import importlib.util
import sys
from types import SimpleNamespace

import pytest

from sagemaker_model.device import NoGpu, choose_device


def fake_torch(monkeypatch: pytest.MonkeyPatch, *, cuda: str | None, available: bool) -> None:
    """Replaces torch by a fake with this CUDA version and availability."""
    fake = SimpleNamespace(version=SimpleNamespace(cuda=cuda), cuda=SimpleNamespace(is_available=lambda: available))
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())


def test_the_cpu_is_used_if_requested_even_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, cuda="13.0", available=True)
    assert choose_device("cpu", require_gpu=False) == "cpu"


def test_auto_uses_the_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, cuda="13.0", available=True)
    assert choose_device("auto", require_gpu=False) == "cuda"


@pytest.mark.parametrize(
    ("cuda", "available", "reason"), [(None, False, "built for the CPU"), ("13.0", False, "finds no CUDA device")]
)
def test_without_a_gpu_auto_uses_the_cpu_and_a_required_gpu_raises_the_reason(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, available: bool, reason: str
) -> None:
    fake_torch(monkeypatch, cuda=cuda, available=available)
    assert choose_device("auto", require_gpu=False) == "cpu"
    for requested in ("cpu", "auto", "cuda"):
        with pytest.raises(NoGpu, match=reason):
            choose_device(requested, require_gpu=True)
    with pytest.raises(NoGpu, match=reason):
        choose_device("cuda", require_gpu=False)


def test_without_torch_a_required_gpu_raises_an_error_that_names_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert choose_device("auto", require_gpu=False) == "cpu"
    with pytest.raises(NoGpu, match="torch is not installed"):
        choose_device("auto", require_gpu=True)
