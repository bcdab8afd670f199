"""Copy the tables of a stage to a file, and write them back."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.keys import Stage
from cli.terminal import UsageError, console, messages, print_errors
from local.keys import connection
from local.tables import KEYS, dump, load
from sagemaker_model.weights.files import atomic_write

File = Annotated[Path, typer.Argument(dir_okay=False, help="File of JSON lines, compressed by gzip.")]
JobsTable = Annotated[
    str | None,
    typer.Option("--jobs-table", help="Another table of jobs, such as a restored one.", show_default="stage's"),
]
RegistryTable = Annotated[
    str | None, typer.Option("--registry-table", help="Another registry table.", show_default="stage's")
]


def backup(file: File, stage: Stage = None, jobs_table: JobsTable = None, registry_table: RegistryTable = None) -> None:
    """Copy the jobs, keys, presets, caps and usage of a stage to a file. Reads the whole tables. The file has digests
    of API keys and webhook secrets: keep it private."""
    with print_errors(), connection(stage) as (outputs, make_client), messages.status("Reading"):
        tables = {**{table: outputs[table] for table in KEYS}, **_named(jobs_table, registry_table)}
        counts: Counter[str] = Counter()
        with atomic_write(file) as temporary:
            temporary.touch(mode=0o600)
            with gzip.open(temporary, "wt", encoding="utf-8") as stream:
                for line in dump(make_client("dynamodb"), tables):
                    stream.write(json.dumps(line) + "\n")
                    counts[line["table"]] += 1
    console.print(f"{file}: {_text(counts)}.", markup=False, soft_wrap=True)


def restore(
    file: File,
    stage: Stage = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also replace items that exist.", show_default="keep them")
    ] = False,
) -> None:
    """Write the items of a backup to the tables of a stage. May be interrupted and repeated."""
    written: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    with print_errors(), connection(stage) as (outputs, make_client), messages.status("Writing") as progress:
        tables = {table: outputs[table] for table in KEYS}
        for restored in load(make_client("dynamodb"), tables, _lines(file), overwrite=overwrite):
            written, kept = restored.written, restored.kept
            progress.update(f"{written.total() + kept.total()} items")
    console.print(f"Written: {_text(written)}. Unchanged: {_text(kept)}.", markup=False, soft_wrap=True)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Raises UsageError for a file that `backup` did not write."""
    try:
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            for text in stream:
                line = json.loads(text)
                if line["table"] not in KEYS:
                    raise ValueError(line["table"])
                yield line
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is not a backup of `maskdrop backup`: {error}") from error


def _named(jobs_table: str | None, registry_table: str | None) -> dict[str, str]:
    named = {"JobsTable": jobs_table, "RegistryTable": registry_table}
    return {table: name for table, name in named.items() if name}


def _text(counts: Counter[str]) -> str:
    return f"{counts['JobsTable']} jobs, {counts['RegistryTable']} items of the registry"
