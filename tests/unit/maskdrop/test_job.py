import json

from hypothesis import given
from hypothesis import strategies as st

from maskdrop.errors import ErrorInfo
from maskdrop.job import Job, Result, Subject, dropped, folder_of, is_newer, job_id, queued, result_key
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.presets import PRESETS, Presets
from maskdrop.prompt import Prompt
from maskdrop.record import iso
from tests.fakes import NOW, a_source, minutes_later


def test_the_same_image_with_the_same_options_is_the_same_job() -> None:
    assert job_id(a_source(), Options()) == job_id(a_source(), Options())


def test_another_key_version_option_or_owner_is_another_job() -> None:
    ids = {
        job_id(a_source(), Options()),
        job_id(a_source(key="inbox/default/other.jpg"), Options()),
        job_id(a_source(version="v2"), Options()),
        job_id(a_source(), Options(), "somebody"),
        job_id(a_source(), Options(output=Output(format="webp"))),
        job_id(a_source(), Options(engine="grabcut", prompts=(Prompt((0, 0, 5, 5)),))),
    }
    assert len(ids) == 6


def test_results_of_an_owners_jobs_have_separate_keys() -> None:
    jobs = [
        queued(a_source(), "default", options, NOW, owner=owner)
        for owner in ("", "shop", "other")
        for options in (Options(), Options(output=Output(channels="alpha")))
    ]
    keys = [job.result_key for job in jobs]
    assert keys[0] == result_key(a_source().key, Options())
    assert len(set(keys[2:])) == 4
    folders = {key.removeprefix("results/jobs/").partition("/")[0] for key in keys[2:]}
    assert folders == {folder_of("shop"), folder_of("other")}


def test_size_and_sequencer_do_not_change_the_id() -> None:
    assert job_id(a_source(size=1), Options()) == job_id(a_source(size=2), Options())


def test_the_first_folder_names_the_preset() -> None:
    for name, options in PRESETS.items():
        job = dropped(a_source(f"inbox/{name}/a.jpg"), NOW)
        assert (job.preset, job.options) == (name, options)


def test_a_folder_that_names_no_preset_gets_the_default_one() -> None:
    for key in ("inbox/holiday/a.jpg", "inbox/a.jpg", "inbox/webp"):
        assert dropped(a_source(key), NOW).preset == "default"


def test_a_preset_of_the_registry_overrides_a_built_in_one_and_keeps_the_id() -> None:
    own = Presets(lambda: {"shop": {"output": {"format": "jpg"}}, "webp": {"output": {"format": "zip"}}})
    for folder, form in (("shop", "jpg"), ("webp", "zip"), ("matte", "png")):
        source = a_source(f"inbox/{folder}/a.jpg")
        job = dropped(source, NOW, own)
        assert (job.preset, job.options.output.format) == (folder, form)
        assert job.id == dropped(source, NOW).id


def test_two_formats_of_one_name_never_share_a_result() -> None:
    assert result_key("inbox/default/a.jpg", Options()) != result_key("inbox/default/a.png", Options())


@given(st.text(min_size=1, max_size=1024), st.sampled_from(["png", "webp"]))
def test_every_result_key_fits_into_s3(name: str, form: str) -> None:
    key = result_key(f"inbox/{name}", Options(output=Output(format=form)))  # type: ignore[arg-type]
    assert len(key.encode(errors="surrogatepass")) <= 1024
    assert key.startswith("results/")
    assert key.endswith(f".{form}")


def test_two_long_names_that_differ_only_at_the_end_keep_two_results() -> None:
    long = "inbox/" + "ü" * 500
    assert result_key(f"{long}a.jpg", Options()) != result_key(f"{long}b.jpg", Options())


def test_a_job_is_the_same_after_a_round_trip_through_json() -> None:
    job = Job(
        id="ab" * 16,
        state="done",
        preset="default",
        options=Options(engine="grabcut", prompts=(Prompt((1, 2, 3, 4)),)),
        source=a_source(),
        created_at=NOW,
        changed_at=minutes_later(1),
        owner="shop",
        attempts=2,
        bundle="b",
        result=Result("r", "k", 1, 2, 3, "cd", "png"),
        subject=Subject((1, 2, 3, 4), 0.5, 0.75),
        error=ErrorInfo("gave_up", "No.", False),
        warnings=("look",),
        timings={"decode": 1.5},
        cost_usd=0.001,
        finished_at=minutes_later(1),
    )
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_timestamps_sort_as_text() -> None:
    moments = [minutes_later(n / 7) for n in range(100)]
    assert sorted(map(iso, reversed(moments))) == [iso(moment) for moment in moments]


def test_sequencers_are_compared_as_numbers_padded_on_the_right() -> None:
    assert is_newer("0055AED6DCD90281E5", than="0055AED6DCD90281E4")
    assert is_newer("0056", than="0055AED6DCD90281E5")
    assert not is_newer("0055", than="0055AED6DCD90281E5")
    assert is_newer("00f0", than="00A0")


def test_an_unknown_sequencer_is_never_newer() -> None:
    assert not is_newer("", than="00")
    assert not is_newer("00", than="")
