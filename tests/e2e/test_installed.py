"""The package as pip installs it: outside the repository, with the declared dependencies alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from local.config import ROOT
from tests.requirements import canonical, with_dependencies

SOURCES = ("maskdrop", "maskdrop_client", "lambdas", "sagemaker_model", "standalone", "infra", "local", "cli", "web")
FILES = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed a copy of the repository, without its dependencies."""
    copy, target = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("site")
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(copy)], check=True)  # noqa: S603
    return target


def run(installed: Path, home: Path, script: str) -> str:
    """Runs a script with the installed package, in another folder and for another user."""
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(installed)}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script], cwd=home, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_server_and_the_command_import_the_declared_dependencies_alone(installed: Path, tmp_path: Path) -> None:
    names = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    declared = with_dependencies([name.partition("==")[0] for name in names])
    hidden = [
        name
        for name, owners in metadata.packages_distributions().items()
        if not declared & {canonical(owner) for owner in owners} and name not in SOURCES
    ]
    assert {"pytest", "aws_cdk"} <= set(hidden)
    imports = "import cli.app, cli.serve, cli.images, cli.keys, cli.models, standalone.run, maskdrop_client"
    found = run(
        installed, tmp_path, f"import sys; sys.modules.update(dict.fromkeys({hidden})); {imports}; print(cli.__file__)"
    )
    assert found.startswith(str(installed)), "the repository must not be imported"


def test_an_installed_package_stores_its_data_in_the_folder_of_the_user(installed: Path, tmp_path: Path) -> None:
    folder = run(installed, tmp_path, "from local.config import LocalConfig; print(LocalConfig.from_env({}).weights)")
    assert folder.strip() == str(tmp_path / ".local" / "share" / "maskdrop" / "weights")


def test_the_console_is_part_of_the_package(installed: Path) -> None:
    assert list(installed.rglob("share/maskdrop/web/index.html"))
