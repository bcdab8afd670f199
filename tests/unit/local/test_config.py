import json
from pathlib import Path

import pytest

from local.config import AWS_PORT, MODEL_PORT, ROOT, STAGE, STATE_DIR, STRICT, LocalConfig, LocalError
from local.stack import make_certificate


def test_the_defaults_use_folders_of_the_checkout() -> None:
    config = LocalConfig.from_env({})
    assert (config.aws_port, config.sagemaker_port, config.model_port) == (4566, 8085, 8080)
    assert (config.state, config.drop, config.results) == (ROOT / ".local", ROOT / "drop", ROOT / "results")


def test_a_second_stack_has_its_own_folders_and_shares_the_build_outputs(tmp_path: Path) -> None:
    config = LocalConfig.from_env({STATE_DIR: str(tmp_path), AWS_PORT: "5000"})
    assert (config.drop, config.results) == (tmp_path / "drop", tmp_path / "results")
    assert config.endpoint_url == "http://127.0.0.1:5000"
    assert config.cdk_out == LocalConfig().cdk_out


def test_the_configuration_round_trips_through_the_environment(tmp_path: Path) -> None:
    config = LocalConfig.from_env({STATE_DIR: str(tmp_path), MODEL_PORT: "9000"})
    assert LocalConfig.from_env(config.to_env()) == config


def test_the_stage_selects_the_stacks_and_their_folder() -> None:
    gpu, cpu = LocalConfig.from_env({}), LocalConfig.from_env({STAGE: "local-cpu"})
    assert LocalConfig.from_env(cpu.to_env()) == cpu
    assert gpu.stacks == ("Maskdrop-local", "MaskdropBulk-local", "MaskdropInteractive-local")
    assert cpu.app_stack == "Maskdrop-local-cpu"
    assert gpu.cdk_out != cpu.cdk_out


def test_another_shell_finds_the_running_stack_without_the_variables_that_started_it(tmp_path: Path) -> None:
    env = {STATE_DIR: str(tmp_path)}
    assert LocalConfig.of_running_stack(env) == LocalConfig.from_env(env)  # no stack runs

    started = LocalConfig.from_env({**env, STAGE: "local-cpu", AWS_PORT: "5000", MODEL_PORT: "9000", STRICT: "1"})
    urls = {
        "endpoint_url": started.endpoint_url,
        "sagemaker_url": started.sagemaker_url,
        "model_url": started.model_url,
    }
    started.stack_file.write_text(json.dumps({"stage": started.stage, **urls}))
    assert LocalConfig.of_running_stack(env) == started


@pytest.mark.parametrize("port", ["0", "65536", "eighty", "-1", "٣٣٣"])
def test_an_invalid_port_is_rejected_with_the_name_of_its_variable(port: str) -> None:
    with pytest.raises(LocalError, match=AWS_PORT):
        LocalConfig.from_env({AWS_PORT: port})


def test_one_error_names_every_invalid_port() -> None:
    with pytest.raises(LocalError, match=f"(?s){AWS_PORT}.*{MODEL_PORT}"):
        LocalConfig.from_env({AWS_PORT: "x", MODEL_PORT: "y"})


def test_equal_ports_are_rejected() -> None:
    with pytest.raises(LocalError, match="different"):
        LocalConfig.from_env({AWS_PORT: "8080"})


def test_one_error_names_equal_ports_and_an_invalid_strict_mode() -> None:
    with pytest.raises(LocalError, match=r"STRICT must be .* three different ports"):
        LocalConfig.from_env({"MASKDROP_LOCAL_STRICT": "x", "MASKDROP_LOCAL_MODEL_PORT": "8085"})


def test_strict_mode_round_trips_and_uses_tls(tmp_path: Path) -> None:
    config = LocalConfig.from_env({STATE_DIR: str(tmp_path), STRICT: "1"})
    assert LocalConfig.from_env(config.to_env()) == config
    assert config.endpoint_url == "https://127.0.0.1:4566"
    assert config.ca_bundle
    assert config.ca_bundle.is_relative_to(tmp_path)


@pytest.mark.parametrize("text", ["", "0"])
def test_without_strict_mode_there_is_no_ca_bundle(text: str) -> None:
    config = LocalConfig.from_env({STRICT: text})
    assert (config.endpoint_url, config.ca_bundle) == ("http://127.0.0.1:4566", None)


def test_an_invalid_value_of_strict_mode_is_rejected() -> None:
    with pytest.raises(LocalError, match=STRICT):
        LocalConfig.from_env({STRICT: "yes"})


def test_strict_mode_without_openssl_raises_an_error_that_names_openssl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = LocalConfig(state=tmp_path, strict=True)
    with pytest.raises(LocalError, match="openssl"):
        make_certificate(config, tmp_path / "emulator.crt")
