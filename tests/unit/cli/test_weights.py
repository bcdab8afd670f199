"""Weights that the commands download before the first use."""

from pathlib import Path

import pytest

from cli import engines
from cli.engines import weights_for
from sagemaker_model.weights import store
from sagemaker_model.weights.download import DownloadFailed


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the downloaded weights; the default folder is empty."""
    names = list[str]()
    monkeypatch.setattr(engines, "weights_folder", lambda folder: folder or tmp_path)
    monkeypatch.setattr(store, "fetch", lambda weights, _: names.append(weights.name))
    return names


def test_the_first_use_of_an_engine_downloads_its_missing_weights(fetched: list[str], tmp_path: Path) -> None:
    (tmp_path / store.known()["selfie"].file).write_bytes(b"")
    assert weights_for("auto", None) == tmp_path
    assert "u2netp" in fetched
    assert "selfie" not in fetched


def test_an_engine_whose_weights_are_in_the_package_downloads_nothing(fetched: list[str]) -> None:
    weights_for("portrait", None)
    assert fetched == []


def test_a_given_folder_is_used_as_it_is(fetched: list[str], tmp_path: Path) -> None:
    assert weights_for("auto", tmp_path / "other") == tmp_path / "other"
    assert fetched == []


def test_without_a_network_the_first_failed_download_is_reported_and_the_last(
    fetched: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(weights: store.Weights, _: Path) -> None:
        fetched.append(weights.name)
        raise DownloadFailed("pip could not download it")

    monkeypatch.setattr(store, "fetch", fail)
    weights_for("auto", None)
    assert len(fetched) == 1
    assert "finds people only" in " ".join(capsys.readouterr().err.split())
