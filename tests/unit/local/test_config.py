from pathlib import Path

import pytest

from local.config import AWS_PORT, MODEL_PORT, ROOT, STATE_DIR, STRICT, LocalConfig, LocalError
from local.stack import make_certificate


def test_without_settings_everything_lies_in_the_checkout() -> None:
    config = LocalConfig.from_env({})
    assert (config.aws_port, config.sagemaker_port, config.model_port) == (4566, 8085, 8080)
    assert (config.state, config.drop, config.results) == (ROOT / ".local", ROOT / "drop", ROOT / "results")


def test_a_second_stack_keeps_its_folders_to_itself_and_shares_what_is_made(tmp_path: Path) -> None:
    config = LocalConfig.from_env({STATE_DIR: str(tmp_path), AWS_PORT: "5000"})
    assert (config.drop, config.results) == (tmp_path / "drop", tmp_path / "results")
    assert config.endpoint_url == "http://127.0.0.1:5000"
    assert config.cdk_out == LocalConfig().cdk_out


def test_a_process_is_told_the_configuration_by_its_environment(tmp_path: Path) -> None:
    config = LocalConfig.from_env({STATE_DIR: str(tmp_path), MODEL_PORT: "9000"})
    assert LocalConfig.from_env(config.to_env()) == config


@pytest.mark.parametrize("port", ["0", "65536", "eighty", "-1", "٣٣٣"])
def test_a_port_that_is_none_is_named_with_its_setting(port: str) -> None:
    with pytest.raises(LocalError, match=AWS_PORT):
        LocalConfig.from_env({AWS_PORT: port})


def test_every_faulty_port_is_named_at_once() -> None:
    with pytest.raises(LocalError, match=f"(?s){AWS_PORT}.*{MODEL_PORT}"):
        LocalConfig.from_env({AWS_PORT: "x", MODEL_PORT: "y"})


def test_two_programs_on_one_port_are_refused() -> None:
    with pytest.raises(LocalError, match="different"):
        LocalConfig.from_env({AWS_PORT: "8080"})


def test_the_strict_mode_is_told_on_and_speaks_tls(tmp_path: Path) -> None:
    config = LocalConfig.from_env({STATE_DIR: str(tmp_path), STRICT: "1"})
    assert LocalConfig.from_env(config.to_env()) == config
    assert config.endpoint_url == "https://127.0.0.1:4566"
    assert config.ca_bundle
    assert config.ca_bundle.is_relative_to(tmp_path)


@pytest.mark.parametrize("text", ["", "0"])
def test_without_the_strict_mode_there_is_nothing_to_verify(text: str) -> None:
    config = LocalConfig.from_env({STRICT: text})
    assert (config.endpoint_url, config.ca_bundle) == ("http://127.0.0.1:4566", None)


def test_a_strict_mode_that_is_neither_on_nor_off_is_refused() -> None:
    with pytest.raises(LocalError, match=STRICT):
        LocalConfig.from_env({STRICT: "yes"})


def test_without_openssl_the_strict_mode_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = LocalConfig(state=tmp_path, strict=True)
    with pytest.raises(LocalError, match="openssl"):
        make_certificate(config, tmp_path / "emulator.crt")
