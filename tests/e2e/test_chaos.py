"""The fault harness with few images, on a stack of its own (docs/chaos.md)."""

from __future__ import annotations

import os
import shutil

from local.config import ROOT, LocalConfig
from tests.chaos.__main__ import SHARE, run
from tests.chaos.harness import started
from tests.chaos.plan import DISTURBANCES
from tests.e2e.conftest import environment

IMAGES, SEED = 40, 1


def test_after_all_faults_each_image_has_one_final_record_and_its_result_and_a_deleted_record_is_found() -> None:
    state = ROOT / ".local" / f"chaos-{os.getpid()}"
    with started(LocalConfig.from_env(environment(state)), SEED) as harness:
        report = run(harness, IMAGES, SHARE)
        lost = next(job for job in harness.records() if job.owner)
        harness.jobs.delete(lost.id, state=lost.state)
        assert {finding.kind for finding in harness.findings()} == {"lost", "result_without_record"}
    assert report.findings == []
    assert report.accepted >= IMAGES
    assert set(report.disturbances) == set(DISTURBANCES)
    assert sum(report.faults.values()) > 0
    shutil.rmtree(state, ignore_errors=True)
