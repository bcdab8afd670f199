"""Files that have broken other services, through the drop folder and the API of a stack."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from maskdrop.errors import error_kinds
from maskdrop.options import Options
from tests.e2e.conftest import Running
from tests.fuzz.awkward import awkward
from tests.fuzz.senders import Outcome, outcome

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "awkward_inputs"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the folder shared/data/awkward_inputs is missing")


def test_the_job_of_every_file_in_the_drop_folder_ends_as_its_manifest_states(running: Running) -> None:
    with running.presets({"awkward": Options.from_json({"engine": "selfie"})}):
        jobs = {running.put(one.data, f"awkward/{one.name}"): one for one in awkward(FOLDER)}
        finished = running.wait_for_end(jobs)
    statuses = {kind.code: kind.status for kind in error_kinds().values()}
    for job_id, job in finished.items():
        result = Outcome(statuses[job.error.code], job.error.code) if job.error else Outcome(200, "")
        assert jobs[job_id].allows(result), (jobs[job_id].name, job.error)
        assert job.attempts <= 1, "an error of a file is not retried"


def test_the_response_to_every_file_is_as_its_manifest_states(running: Running) -> None:
    headers = {"x-api-key": running.stack.api_key}
    with httpx2.Client(base_url=running.stack.api_url, headers=headers, timeout=60, trust_env=False) as http:
        for one in awkward(FOLDER):
            assert one.allows(outcome(http, "cutouts", one.name, one.data, "selfie")), one.name
