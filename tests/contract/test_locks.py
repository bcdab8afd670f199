"""What is deployed is installed from locks, whose digests pip checks."""

import re

import pytest

from infra.lock import LOCKS, Lock
from infra.sources import ROOT
from tests.requirements import canonical

LINE = re.compile(r"([a-z0-9.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}")


def pins(file: str) -> dict[str, str]:
    """The direct pins of a requirements file and of those that it includes, for x86-64."""
    found: dict[str, str] = {}
    path = ROOT / file
    for line in path.read_text().splitlines():
        if line.startswith("--requirement "):
            found |= pins(str((path.parent / line.split()[1]).relative_to(ROOT)))
        elif line and not line.startswith("#"):
            name, _, version = line.partition(";")[0].strip().partition("==")
            found[canonical(name)] = version
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.requirements)
def test_a_lock_has_every_pin_of_its_requirements_and_a_digest_for_every_package(lock: Lock) -> None:
    lines = [line for line in lock.path.read_text().splitlines() if not line.startswith("#")]
    locked = {match[1]: match[2] for line in lines if (match := LINE.fullmatch(line))}
    assert len(locked) == len(lines)
    assert pins(lock.requirements).items() <= {canonical(name): version for name, version in locked.items()}.items()


def test_functions_and_containers_are_installed_from_the_locks() -> None:
    assert '"--require-hashes", "--requirement", requirements' in (ROOT / "infra" / "bundle.py").read_text()
    dockerfile = (ROOT / "sagemaker_model" / "serving" / "Dockerfile").read_text()
    assert "--no-deps --require-hashes --requirement sagemaker_model/serving/requirements.lock" in dockerfile
