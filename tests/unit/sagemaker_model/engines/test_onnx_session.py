import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from sagemaker_model.engines.onnx_session import onnx_session
from tests.unit.sagemaker_model.engines.small_onnx import BRIGHT, network

DARK = tuple(-weight for weight in BRIGHT)


def test_engines_of_one_network_share_its_session() -> None:
    one = onnx_session(network(32), 1)
    assert onnx_session(network(32), 1) is one
    assert onnx_session(network(32), 2) is not one, "another number of threads"
    assert onnx_session(network(32), 1, keep_memory=False) is not one
    assert onnx_session(network(32, DARK), 1) is not one, "another network"


def test_a_replaced_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(network(32))
    before = onnx_session(path, 1)
    assert onnx_session(path, 1) is before
    replacement = tmp_path / "new.onnx"
    replacement.write_bytes(network(32, DARK))
    replacement.replace(path)
    assert onnx_session(path, 1) is not before


def test_a_session_is_closed_with_its_last_engine() -> None:
    import weakref

    session = onnx_session(network(48), 1)
    closed = weakref.ref(session)
    del session
    gc.collect()
    assert closed() is None


def test_onnx_runtime_reports_nothing_to_its_vendor(tmp_path: Path) -> None:
    """With telemetry it writes an identifier of the device and a queue of events to the home folder."""
    program = (
        "import sys; from sagemaker_model.engines import onnx_session as s; s.onnx_session(sys.stdin.buffer.read(), 1)"
    )
    env = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", program]
    subprocess.run(command, env={**env, "HOME": str(tmp_path)}, input=network(32), check=True)  # noqa: S603 - fixed command
    assert list(tmp_path.rglob("*")) == []
