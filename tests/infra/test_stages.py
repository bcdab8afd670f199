from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from infra import stages
from infra.stages import FORMS, TABLES, InvalidStage, Stage, load, names

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("dev", "local", "local-cpu", "prod")


def stage_file(folder: Path, text: str, name: str = "shop") -> Path:
    (folder / f"{name}.toml").write_text(text)
    return folder


def test_every_file_is_a_valid_stage() -> None:
    assert {*STAGES} <= {*names()}  # a fork has more
    assert [load(name).name for name in names()] == names()


def test_a_new_stage_is_a_new_file(tmp_path: Path) -> None:
    stage = load("shop", stage_file(tmp_path, 'bulk = "gpu"\ncors = ["https://a.example"]\n[tags]\nteam = "shop"\n'))
    assert (stage.name, stage.bulk, stage.cors, stage.tags) == ("shop", "gpu", ("https://a.example",), {"team": "shop"})


def test_the_default_stage_needs_no_quota_of_a_new_account() -> None:
    stage = Stage(name="dev")
    assert (stage.bulk, stage.interactive) == ("serverless", "serverless")
    assert stage.serverless_memory_mb <= 3072
    assert 2 * (stage.bulk_at_once + stage.interactive_at_once) <= 10  # two stages share the quota of an account
    assert stage.lambda_concurrency <= 10


def test_prod_processes_jobs_on_gpu_instances() -> None:
    assert load("prod").bulk == "gpu"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('bulk = "tpu"', "bulk: Input should be 'gpu', 'cpu' or 'serverless'; got 'tpu'"),
        ("waf = 1", "waf must be true or false, without quotes; got 1"),
        ('firewall = "on"', "firewall is not an option; options are batching_window_s"),
        ('name = "dev"', "name is not an option"),
        ("serverless_memory_mb = 3000", "serverless_memory_mb: "),
        ("keep_results_days = 5", "keep_jobs_days must not exceed keep_results_days"),
        ("vpc = true", "vpc needs endpoints on instances"),
        ('source_buckets = ["photos/my shop/"]', "source_buckets.0 must be "),
        ('source_buckets = ["photos/shop"]', "source_buckets.0 must be "),
        ('source_buckets = ["photos/${aws:username}/"]', "source_buckets.0 must be "),
        ('source_buckets = ["photos/a/../b/"]', "source_buckets must not contain the parts"),
        ("bulk_at_once = 3", "bulk_at_once must be at most 2"),
        ("bulk = ", "Invalid value"),
        ("bulk = gpu", "Text needs quotes"),
        ('bulks = "gpu"', "bulks is not an option; did you mean bulk? Options are batching_window_s"),
        ('mail = "operator"', "mail must be one e-mail address, or \"\"; got 'operator'"),
        ('weights = "s3://models/1"', "weights must be s3://BUCKET/PREFIX/ with a slash at the end; got"),
        ('cors = "https://a.example"', "cors must be a list of texts"),
        ('cors = ["a.example"]', "cors.0 must be an origin"),
        ('cors = ["https://a.example/"]', "cors.0 must be an origin"),
        ('bulk = "gpu"\ngpu_instance_type = "ml.c6i.xlarge"', "gpu_instance_type must be a type with an NVIDIA GPU"),
        ('cpu_instance_type = "ml.g6.xlarge"', "cpu_instance_type must be a type with x86 processors"),
        ('cpu_instance_type = "ml.c7gd.xlarge"', "not a GPU or Graviton"),
        ('[tags]\nteam = "shop"\nbulk = "gpu"', "tags: bulk is an option of the stage; options precede [tags]"),
        ('[tags]\nteam = "shop"\nwaf = true', "tags.waf must be text in quotes"),
        ("[tags]\nteam = 7", "tags.team must be text in quotes; got 7"),
        (
            '[domain]\nname = "a.example"\nwaf = true',
            "options are certificate, name, zone. Options of",
        ),
        (
            "[reserved_concurrency]\ningst = 1",
            "not a function of this stage: ingst; functions are api, authorize, dead_letters, edit, ingest, invoke,",
        ),
        ('bulk = "gpu"\n[reserved_concurrency]\ninvoke = 1', "not a function of this stage: invoke"),
        ("lambda_concurrency = 110\n[reserved_concurrency]\napi = 11", "lambda_concurrency must be at least 111"),
        (
            "lambda_concurrency = 200\n[reserved_concurrency]\ningest = 2",
            "reserved_concurrency: ingest has at least 10 executions, which its queue starts, got 2",
        ),
        (
            "lambda_concurrency = 200\nbulk_at_once = 5\n[reserved_concurrency]\ninvoke = 4",
            "reserved_concurrency: invoke has at least 5 executions",
        ),
        ('[tags]\n"Maskdrop:Stage" = "dev"', "tags: at most 46"),
        ('[tags]\n"AWS:team" = "shop"', "tags: at most 46"),
        ("[tags]\n" + "".join(f'"key-{number}" = ""\n' for number in range(47)), "tags: at most 46"),
        ('[tags]\nteam = "shop"\nTeam = "shop"', "tags: two keys differ only by upper and lower case"),
        ('[tags]\n"team" = "shop;"', "tags.team"),
        ('kms_key = "alias/maskdrop"', "kms_key must be the ARN of a key"),
        ('[domain]\nname = "images.example.com"', "domain.certificate: Field required"),
    ],
)
def test_an_invalid_option_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidStage) as caught:
        load("shop", stage_file(tmp_path, text))
    assert message in str(caught.value)
    assert "stages/shop.toml" in str(caught.value)


def test_every_option_with_a_pattern_states_what_is_accepted() -> None:
    schema = Stage.model_json_schema()
    options = schema["properties"] | {
        f"{table}.{name}": one
        for table, kind in TABLES.items()
        for name, one in kind.model_json_schema()["properties"].items()
    }
    assert {name for name, option in options.items() if '"pattern' in json.dumps(option)} == FORMS.keys()


@pytest.mark.parametrize("instance", ["ml.c5.large", "ml.c6i.xlarge", "ml.m5d.4xlarge", "ml.t2.medium"])
def test_every_x86_instance_type_is_accepted(instance: str) -> None:
    assert Stage(name="dev", cpu_instance_type=instance).cpu_instance_type == instance


@pytest.mark.parametrize("instance", ["ml.g4dn.xlarge", "ml.g5.48xlarge", "ml.g6e.2xlarge", "ml.p4d.24xlarge"])
def test_every_gpu_instance_type_is_accepted(instance: str) -> None:
    assert Stage(name="dev", gpu_instance_type=instance).gpu_instance_type == instance


def test_every_fault_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidStage) as caught:
        load("shop", stage_file(tmp_path, 'bulk = "tpu"\nbudget_usd = 0\n'))
    assert len(str(caught.value).splitlines()) == 2


def test_an_unknown_stage_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidStage,
        match=r"There is no stage .shop.; stages are dev, prod\. A new stage is a new file: stages/shop.toml",
    ):
        load("shop", stage_file(stage_file(tmp_path, "", "dev"), "", "prod"))
    with pytest.raises(InvalidStage, match="name"):
        load("Shop-1", stage_file(tmp_path, "", "Shop-1"))


@pytest.mark.parametrize(
    ("options", "bulk", "interactive"),
    [
        ({}, "maskdrop-dev-bulk-serverless", "maskdrop-dev-interactive-serverless"),
        ({"bulk": "gpu", "interactive": "off"}, "maskdrop-dev-bulk-g6-xlarge", ""),
        (
            {"bulk": "cpu", "interactive": "realtime", "gpu_instance_type": "ml.g5.2xlarge"},
            "maskdrop-dev-bulk-c6i-xlarge",
            "maskdrop-dev-interactive-g5-2xlarge",
        ),
    ],
)
def test_the_name_of_an_endpoint_contains_its_mode_and_its_instance_type(
    options: dict[str, str], bulk: str, interactive: str
) -> None:
    stage = Stage.model_validate({"name": "dev", **options})
    assert (stage.bulk_endpoint, stage.interactive_endpoint) == (bulk, interactive)


def test_the_repository_of_another_key_is_another_one() -> None:
    key = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890a"
    names = {Stage(name="dev", kms_key=one).repository for one in ("", f"{key}b", f"{key}c")}
    assert len(names) == 3
    assert "maskdrop-dev" in names


@pytest.mark.parametrize(
    ("options", "images"),
    [
        ({"bulk": "gpu", "bulk_max_instances": 2}, 2 * 20 * 3600),
        ({"bulk": "cpu"}, 4 * 3600),
        ({"bulk": "serverless", "bulk_at_once": 3, "lambda_concurrency": 20}, 3 * 3600),
    ],
)
def test_the_backlog_is_limited_to_an_hour_of_work(options: dict[str, object], images: int) -> None:
    assert Stage.model_validate({"name": "dev", **options}).backlog_max == images


def test_the_cdk_shows_a_fault_of_a_stage_without_a_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stages, "load", lambda *_: load("nowhere", tmp_path))
    with pytest.raises(SystemExit, match="There is no stage 'nowhere'"):
        runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
