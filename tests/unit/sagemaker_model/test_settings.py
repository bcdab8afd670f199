from __future__ import annotations

from pathlib import Path

import pytest

from maskdrop.settings import InvalidSettings
from sagemaker_model.settings import ServerSettings


def test_unset_variables_keep_their_defaults() -> None:
    assert ServerSettings.from_env({}) == ServerSettings()


def test_settings_are_read_from_their_variables_with_their_types() -> None:
    env = {"MODEL_PORT": "9000", "MODEL_WEIGHTS_DIR": "w", "MODEL_USD_PER_HOUR": "0.5", "MODEL_HOST": "0.0.0.0"}  # noqa: S104
    found = ServerSettings.from_env(env)
    assert (found.port, found.weights_dir, found.usd_per_hour, found.host) == (9000, Path("w"), 0.5, "0.0.0.0")  # noqa: S104


def test_the_workers_share_the_cores_unless_network_threads_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert ServerSettings().threads == 1
    assert ServerSettings(workers=1).threads == 8
    assert ServerSettings(workers=3).threads == 2
    assert ServerSettings(workers=16).threads == 1
    assert ServerSettings.from_env({"MODEL_WORKERS": "8", "MODEL_NETWORK_THREADS": "2"}).threads == 2


def test_one_error_names_all_invalid_settings() -> None:
    env = {
        "MODEL_PORT": "x",
        "MODEL_WORKERS": "0",
        "MODEL_DEADLINE_S": "nan",
        "MODEL_DEVICE": "tpu",
        "MODEL_REQUIRE_GPU": "maybe",
    }
    with pytest.raises(InvalidSettings) as caught:
        ServerSettings.from_env(env)
    assert all(name in str(caught.value) for name in env)


def test_the_drain_time_is_shorter_than_the_30_s_of_sagemaker() -> None:
    assert ServerSettings().drain_s < 30
