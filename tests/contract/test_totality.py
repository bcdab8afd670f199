"""Every closed set of the project has a row in every table that lists its members.

One test for each set. A failure names the table and the row, such as `sagemaker_model.imaging.pixels.ENCODERS has no
'avif'`. The tests read code and pages only; they need no weights, no torch and no local stack.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

import cli
import lambdas
import local
import maskdrop
import sagemaker_model
from cli.app import app
from cli.checks import CHECKS, ESSENTIAL
from infra.stages import BUNDLE_MAX, IMAGES_PER_SECOND, Bulk, Stage
from lambdas.adapters.editors.bedrock import BEDROCK_EDITORS
from lambdas.http.dialects import airplanes, rembg, removebg, sam, withoutbg
from lambdas.http.openapi import document, operations
from lambdas.http.routes import DIALECTS
from lambdas.observe import ERROR_METRICS, JOB_METRICS
from local.images import ENDED
from maskdrop import errors, schema
from maskdrop.access import Scope
from maskdrop.canvas import MARKETPLACES
from maskdrop.catalog import DEFAULT_ENGINE, ENGINES, PromptKind, Returns, Task
from maskdrop.edit import EDITORS, EditorName
from maskdrop.errors import Internal, InvalidPrompt, MaskdropError
from maskdrop.job import STATES, State
from maskdrop.options import Options, Refine
from maskdrop.output import CONTENT_TYPE, FIELDS, PIXELS_MAX, Channels, Format, Output, Size
from maskdrop.presets import PRESETS
from maskdrop.prompt import FIELDS as PROMPT_FIELDS
from maskdrop.prompt import Prompt
from maskdrop.settings import Interactive, Settings
from sagemaker_model.cutout import FULL_SIZE_ALPHA, no_conversion
from sagemaker_model.data.prepare_boxes import BoxKind
from sagemaker_model.engines.verification import Optimisation
from sagemaker_model.evaluation.detection import DetectionScores
from sagemaker_model.evaluation.detection_run import FIGURES
from sagemaker_model.evaluation.metrics import Scores
from sagemaker_model.evaluation.summary import Result, tables
from sagemaker_model.imaging.encode import ENCODERS, SIDE_MAX
from sagemaker_model.settings import ServerSettings
from sagemaker_model.training.settings import SETTINGS, TrainingSettings
from sagemaker_model.weights.store import known
from tests.bench.functions import FUNCTIONS
from tests.load import mix

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def check_rows(members: Iterable[str], rows_by_table: Mapping[str, Iterable[str]]) -> None:
    """Fails with one line for each row that a table lacks, and for each row that is not a member of the set."""
    expected = set(members)
    faults = []
    for table, rows in rows_by_table.items():
        faults += [f"{table} has no {name!r}" for name in sorted(expected - {*rows})]
        faults += [f"{table} has {name!r}, which is not one of {sorted(expected)}" for name in {*rows} - expected]
    assert not faults, "\n".join(faults)


def page_table(page: str, header: str) -> list[list[str]]:
    """The rows, as cells, of the table of a page whose header line begins with `header`."""
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", (ROOT / page).read_text(), re.MULTILINE)
    found = [block for block in blocks if block.startswith(header)]
    assert found, f"{page} has no table that begins with {header!r}"
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for block in found
        for line in block.splitlines()[2:]
    ]


def page_rows(page: str, header: str) -> dict[str, list[str]]:
    """The rows of `page_table` by the code span that begins them. Rows that begin with plain text are left out."""
    return {cells[0].split("`")[1]: cells[1:] for cells in page_table(page, header) if cells[0].startswith("`")}


def page_text(page: str, start: str) -> str:
    """The line of a page that begins with `start`."""
    return next(line for line in (ROOT / page).read_text().splitlines() if line.startswith(start))


def code_spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


# Outputs


def test_every_output_format_is_in_every_table() -> None:
    pattern = FIELDS["format"].pattern
    responses = document()["paths"]["/v1/cutouts"]["post"]["responses"]["200"]["content"]
    check_rows(
        get_args(Format),
        {
            "maskdrop.output.CONTENT_TYPE": CONTENT_TYPE,
            "sagemaker_model.imaging.pixels.ENCODERS": ENCODERS,
            "sagemaker_model.imaging.pixels.SIDE_MAX (png has no limit)": {*SIDE_MAX, "png"},
            "maskdrop.output.FIELDS": {FIELDS["format"].parse(name) for name in pattern.split("|")},
            "the responses of POST /v1/cutouts in the OpenAPI document": {
                name for name, content_type in CONTENT_TYPE.items() if content_type in responses
            },
            "docs/output.md": code_spans(page_rows("docs/output.md", "| field")["format"][0]),
            "the remove.bg table of docs/vendors.md": {
                *code_spans(page_rows("docs/vendors.md", "| parameter")["format"][0])
            }
            - {"auto"},
        },
    )


@pytest.mark.parametrize(("field", "literal"), [("channels", Channels), ("size", Size)])
def test_every_value_of_an_output_field_is_in_every_table(field: str, literal: Any) -> None:
    documented = code_spans(page_rows("docs/output.md", "| field")[field][0])
    check_rows(
        get_args(literal),
        {
            "maskdrop.output.FIELDS": {FIELDS[field].parse(name) for name in FIELDS[field].pattern.split("|")},
            "docs/output.md": {FIELDS[field].parse(name) for name in documented},
        },
    )


def test_every_size_has_a_number_of_pixels() -> None:
    check_rows(get_args(Size), {"maskdrop.output.PIXELS_MAX": PIXELS_MAX})


OUTPUT_VALUES = {
    "format": "webp",
    "metadata": "keep",
    "channels": "alpha",
    "size": "preview",
    "roi": "1px 2px 3px 4px",
    "crop": "10%",
    "outline": "2% gold",
    "canvas": "4:5",
    "padding": "10% 20px",
    "scale": "50%",
    "position": "0% 100%",
    "shadow": "drop 40%",
    "background": "blur 5%",
}
"""A value of each output field that is not its default."""


def test_every_output_field_is_in_every_table() -> None:
    check_rows(
        [field.name for field in fields(Output)],
        {
            "maskdrop.output.FIELDS": FIELDS,
            "docs/output.md": page_rows("docs/output.md", "| field"),
            "Output.to_json": {
                name
                for name, value in OUTPUT_VALUES.items()
                if name in FIELDS and hasattr(Output(), name)
                if Output.from_json(Output.from_json({name: value}).to_json()) != Output()
            },
            "the schema Output of the OpenAPI document": schema.components()["Output"]["properties"],
            "the query parameters of POST /v1/cutouts": schema.output_fields(flat=True),
            "the code of sagemaker_model": {*FIELDS} & _attributes_read_in("sagemaker_model"),
            "OUTPUT_VALUES of this test": OUTPUT_VALUES,
        },
    )


def test_every_marketplace_is_in_every_table_with_its_values() -> None:
    documented = page_rows("docs/output.md", "| marketplace")
    expected = {
        name: [str(place.canvas), str(place.padding or "none"), "white" if place.background else "none"]
        for name, place in MARKETPLACES.items()
    }
    assert {name: cells[:3] for name, cells in documented.items()} == expected
    check_rows(
        MARKETPLACES,
        {"docs/output.md": {*code_spans(page_rows("docs/output.md", "| field")["canvas"][0])} - {"1000x1000", "4:5"}},
    )


# Engines


def test_every_kind_of_prediction_has_a_conversion_to_alpha() -> None:
    check_rows(get_args(Returns), {"sagemaker_model.cutout.FULL_SIZE_ALPHA": FULL_SIZE_ALPHA})


@pytest.mark.parametrize("name", [name for name, row in ENGINES.items() if row.returns != "boxes"])
def test_the_container_converts_what_an_engine_of_the_catalogue_returns(name: str) -> None:
    assert FULL_SIZE_ALPHA[ENGINES[name].returns] is not no_conversion


def test_a_kind_of_prediction_without_a_conversion_is_a_clear_error() -> None:
    with pytest.raises(NotImplementedError, match="FULL_SIZE_ALPHA"):
        no_conversion(None, None)


def test_every_task_is_in_every_table() -> None:
    check_rows(
        get_args(Task),
        {
            "maskdrop.catalog.DEFAULT_ENGINE": DEFAULT_ENGINE,
            "maskdrop.catalog.ENGINES": {task for engine in ENGINES.values() for task in engine.tasks},
            "the schema of options in the OpenAPI document": schema.option_fields(flat=True)["task"]["enum"][:-1],
            "docs/glossary.md": code_spans(page_text("docs/glossary.md", "| task |")),
            "tests.load.mix.REQUESTS": mix.REQUESTS,
        },
    )


def test_every_engine_is_in_every_table() -> None:
    documented = page_rows("docs/models.md", "| engine | subject")
    without_weights = {name for name, cells in documented.items() if cells[1] == "none"}
    check_rows(
        ENGINES,
        {
            "the engines of docs/models.md": documented,
            "sagemaker_model/weights/weights.toml (or weights `none` in docs/models.md)": {
                *({weights.engine for weights in known().values()} - {*get_args(Refine)}),
                *without_weights,
            },
            "the schema of options in the OpenAPI document": schema.option_fields(flat=True)["engine"]["enum"][:-1],
            "the factories that can be imported": {name for name in ENGINES if _has_class(ENGINES[name].factory)},
        },
    )


def _has_class(factory: str) -> bool:
    module, name, *_ = factory.split(":")
    return find_spec(module) is not None and hasattr(importlib.import_module(module), name)


def test_every_published_weight_is_documented() -> None:
    check_rows(known(), {"the weights of docs/models.md": page_rows("docs/models.md", "| name | file")})


PROMPTS: dict[PromptKind, Prompt] = {
    "box": Prompt((1, 2, 3, 4)),
    "points": Prompt(None, ((1, 2, 1),)),
    "label": Prompt(label="face"),
}


def test_every_kind_of_prompt_is_refused_by_an_engine_that_does_not_take_it() -> None:
    refusing = next(engine for engine in ENGINES.values() if not engine.prompts)
    refused = set()
    for kind, prompt in PROMPTS.items():
        with pytest.raises(InvalidPrompt, match=kind):
            Options.from_json({"engine": refusing.name, "prompt": prompt.to_json()})
        refused.add(kind)
    check_rows(
        get_args(PromptKind),
        {
            "the prompts that Options.from_json refuses": refused,
            "maskdrop.prompt.Prompt": {field.name for field in fields(Prompt)} - {"select", "min_confidence", "mode"},
        },
    )


def test_every_field_of_a_prompt_is_in_every_table() -> None:
    check_rows(
        PROMPT_FIELDS,
        {
            "maskdrop.prompt.Prompt": {field.name for field in fields(Prompt)} | {"labels"},  # part of its points
            "the schema Prompt of the OpenAPI document": schema.components()["Prompt"]["properties"],
        },
    )


def test_every_preset_is_in_the_readme() -> None:
    named = [name for cells in page_table("README.md", "| preset") for name in code_spans(cells[0])]
    check_rows(PRESETS, {"README.md": named})


# Jobs


def test_every_job_state_is_in_every_table() -> None:
    listing = document()["paths"]["/v1/jobs"]["get"]["parameters"]
    (enum,) = [parameter["schema"]["enum"] for parameter in listing if parameter["name"] == "state"]
    diagram = (ROOT / "docs" / "architecture.md").read_text().partition("## Job states")[2].split("```")[1]
    flow = importlib.import_module("maskdrop.flow").__doc__ or ""
    check_rows(
        get_args(State),
        {
            "maskdrop.job.STATES": STATES,
            "the parameter `state` of GET /v1/jobs": enum,
            "the schema Job of the OpenAPI document": schema.components()["Job"]["properties"]["state"]["enum"],
            "docs/glossary.md": code_spans(page_text("docs/glossary.md", "| job |")),
            "the diagram of docs/architecture.md": {name for name in get_args(State) if name in diagram},
            "the diagram of maskdrop.flow": {name for name in get_args(State) if name in flow},
        },
    )


def test_every_final_job_state_has_an_event_and_a_metric() -> None:
    event = document()["webhooks"]["end"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    check_rows(
        [state for state in STATES if state not in ("queued", "submitted")],
        {
            "lambdas.observe.JOB_METRICS": JOB_METRICS,
            "local.images.ENDED": ENDED,
            "the webhook of the OpenAPI document": {
                name.removeprefix("job.") for name in event["properties"]["type"]["enum"]
            },
        },
    )


def test_every_function_is_in_every_table() -> None:
    """The functions are the modules of lambdas/ with a handler."""
    handlers = {path.stem for path in (ROOT / "lambdas").glob("*.py") if "\ndef handler(" in path.read_text()}
    constructs = {
        name
        for path in (ROOT / "infra").glob("*.py")
        for name in re.findall(r'super\(\).__init__\(\s*scope, construct_id, name="(\w+)"', path.read_text())
    }
    words = set(re.findall(r"\w+", (ROOT / "docs" / "architecture.md").read_text()))
    check_rows(
        handlers,
        {
            "the constructs of infra": constructs,
            "tests.bench.functions.FUNCTIONS": FUNCTIONS,
            "docs/architecture.md": handlers & words,
        },
    )


def test_every_optimisation_and_engine_is_in_the_table_of_optimisations_on_a_gpu() -> None:
    header, start = page_text("docs/models.md", "| engine | `half`"), "| engine | `half`"
    check_rows(get_args(Optimisation), {"docs/models.md, columns": code_spans(header)})
    engines = {name for cells in page_table("docs/models.md", start) for name in code_spans(cells[0])}
    check_rows([name for name, row in ENGINES.items() if row.returns == "alpha"], {"docs/models.md, rows": engines})


def test_every_editor_is_in_every_table() -> None:
    rows = page_table("docs/operations.md", "| `editor` | generates |")
    documented = {name.strip('"') for cells in rows for name in code_spans(cells[0])}
    check_rows(get_args(EditorName), {"maskdrop.edit.EDITORS": EDITORS, "docs/operations.md": documented | {"off"}})
    check_rows([name for name, row in EDITORS.items() if row.model], {"BEDROCK_EDITORS": BEDROCK_EDITORS})


def test_every_metric_of_the_functions_is_documented() -> None:
    """tests/infra/test_stack.py compares the metrics of the alarms and of the dashboard."""
    check_rows(
        {*JOB_METRICS.values(), *ERROR_METRICS.values(), *_string_arguments("lambdas", "add_metric")},
        {"docs/operations.md": code_spans(page_text("docs/operations.md", "| metrics, namespace").split("|")[2])},
    )


def _string_arguments(folder: str, function: str) -> Iterator[str]:
    """The first argument of each call of `function` in a folder, where it is a literal string."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == function:
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    yield str(first.value)


# Errors


def _import_all() -> None:
    """Imports every module, so that every subclass of MaskdropError is known. Modules that need torch are left out
    where it is not installed."""
    for package in (maskdrop, lambdas, local, cli, sagemaker_model):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                try:
                    importlib.import_module(module.name)
                except ModuleNotFoundError:
                    continue


def _descendants(kind: type[MaskdropError]) -> list[type[MaskdropError]]:
    return [one for child in kind.__subclasses__() for one in (child, *_descendants(child))]


def test_every_error_has_a_code_that_no_other_error_defines() -> None:
    """Groups of errors, which are never raised, have none. A special case may share the code of its parent."""
    _import_all()
    kinds = [kind for kind in _descendants(MaskdropError) if kind.__module__.split(".")[0] != "tests"]
    defined = Counter(kind.code for kind in kinds if "code" in vars(kind))
    assert max(defined.values()) == 1, f"two errors define one of these codes: {defined.most_common(3)}"
    raised = [kind for kind in kinds if not kind.__subclasses__()]
    coded = {kind.__name__ for kind in raised if kind.code in defined and (kind.code != "internal" or kind is Internal)}
    check_rows([kind.__name__ for kind in raised], {"the errors with a code": coded})


def test_every_error_has_a_row_in_the_tree_of_the_docstring() -> None:
    rows = re.findall(r"─ (\w+) +([a-z_]+) +(\d{3}) +(yes|no)", errors.__doc__ or "")
    drawn = {f"{name} {code} {status} {retryable}" for name, code, status, retryable in rows}
    coded = [
        kind for kind in _descendants(MaskdropError) if kind.__module__ == errors.__name__ and "code" in vars(kind)
    ]
    check_rows(
        [f"{kind.__name__} {kind.code} {kind.status} {'yes' if kind.retryable else 'no'}" for kind in coded],
        {"the docstring of maskdrop.errors": drawn},
    )


NOT_OF_THE_API = {
    "source_replaced", "directory_marker", "gave_up", "events_unavailable", "endpoint_starting",
    "endpoint_failed", "missing_source", "multiple_sources", "unknown_foreground", "method_not_allowed",
    "mask_empty", "mask_full", "edit_filtered", "edit_refused", "editor_unavailable", "editor_throttled",
    "editor_timed_out", "spending_cap_reached",
    "model_retired", "model_not_in_region", "malware_found", "not_scanned",
}  # fmt: skip
"""Codes of failed jobs, of retries inside the functions, of the vendor dialects, and of methods that no path has."""


def test_every_error_is_in_the_openapi_document_or_not_of_the_api() -> None:
    described = set(re.findall(r"`([a-z_]+)`", " ".join(_error_descriptions())))
    here = [kind for kind in _descendants(MaskdropError) if kind.__module__ == errors.__name__ and "code" in vars(kind)]
    check_rows(
        [kind.code for kind in here],
        {"the responses of the OpenAPI document, or NOT_OF_THE_API": described | NOT_OF_THE_API},
    )


def _error_descriptions() -> Iterator[str]:
    for path in document()["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if status >= "400":
                    yield response["description"]


def test_every_retryable_error_has_a_status_that_clients_retry() -> None:
    retried = {HTTPStatus.CONFLICT, HTTPStatus.FAILED_DEPENDENCY, HTTPStatus.TOO_MANY_REQUESTS}
    _import_all()
    for kind in _descendants(MaskdropError):
        assert not kind.retryable or kind.status in retried or kind.status >= 500, kind.__name__


def test_every_code_that_a_table_of_errors_lists_exists() -> None:
    codes = {kind.code for kind in _descendants(MaskdropError)}
    listed = {
        "docs/output.md": {code for row in page_table("docs/output.md", "| error") for code in code_spans(row[0])},
        "docs/security.md": {code for row in page_table("docs/security.md", "| code") for code in code_spans(row[0])},
    }
    for page, names in listed.items():
        assert names <= codes, f"{page} lists codes that no error has: {sorted(names - codes)}"


# The HTTP API, the vendor dialects and the command line


def test_every_operation_is_in_the_readme() -> None:
    """As `METHOD PATH`; a path without a method is that of a GET."""
    cells = " ".join(row[0] for row in page_table("README.md", "| request | response |"))
    spans = [span.partition("?")[0].replace("{id}", "{job_id}") for span in code_spans(cells)]
    calls = {span if " " in span else f"GET {span}" for span in spans}
    check_rows({f"{method.upper()} {path}" for method, path in operations()}, {"README.md": calls})


def test_every_path_of_a_dialect_is_in_the_vendors_page() -> None:
    page = (ROOT / "docs" / "vendors.md").read_text()
    paths = [path for dialect in DIALECTS for path in dialect.PATHS]
    check_rows(paths, {"docs/vendors.md": set(re.findall(r"`(?:GET|POST) (/[\w./-]+)", page))})


def _vendor_parameters(heading: str) -> set[str]:
    """The parameters that the section of a vendor in docs/vendors.md lists."""
    section = (ROOT / "docs" / "vendors.md").read_text().partition(f"## {heading}")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (`.*?) \|", section.partition("| parameter |")[2].partition("\n\n")[0], re.MULTILINE)
    return {name for line in lines for name in code_spans(line)}


def test_every_parameter_of_remove_bg_is_documented() -> None:
    documented = _vendor_parameters("remove.bg")
    check_rows({*removebg.KNOWN, *removebg.IGNORED}, {"the remove.bg table of docs/vendors.md": documented})


def test_every_parameter_of_rembg_is_documented() -> None:
    check_rows({*rembg.PARAMETERS, *rembg.IGNORED}, {"the rembg table of docs/vendors.md": _vendor_parameters("rembg")})


@pytest.mark.parametrize(("dialect", "heading"), [(airplanes, "Airplane detection"), (sam, "SAM endpoint")])
def test_every_parameter_of_an_older_system_is_documented(dialect: Any, heading: str) -> None:
    check_rows(dialect.PARAMETERS, {f"the table {heading} of docs/vendors.md": _vendor_parameters(heading)})


def test_every_output_of_withoutbg_is_documented() -> None:
    page = (ROOT / "docs" / "vendors.md").read_text()
    (outputs,) = re.findall(r"/v1/remove-background\?output=([\w\\|]+)", page)
    check_rows(withoutbg.OPTIONS, {"docs/vendors.md": outputs.split("\\|")})


def test_every_code_of_remove_bg_is_documented() -> None:
    """The codes of a wrong parameter or image: those of the tables of the dialect, and ours that the vendor shares."""
    rows = page_rows("docs/vendors.md", "| parameter | support | error").values()
    shared: set[type[errors.MaskdropError]] = {errors.MissingSource, errors.MultipleSources, errors.FileTooLarge}
    shared |= {errors.ResolutionTooHigh, errors.RegionOutside, errors.RegionEmpty}
    check_rows(
        {*removebg.FIELD_CODES.values(), *removebg.CODES.values(), *(kind.code for kind in shared)},
        {"the remove.bg table of docs/vendors.md": {code for cells in rows for code in code_spans(cells[1])}},
    )


def test_every_parameter_of_remove_bg_that_is_an_output_field_has_a_code() -> None:
    for name, field in removebg.PARAMETERS.items():
        assert field in FIELDS, f"{name} is parsed as the output field {field!r}, which does not exist"
        assert field in removebg.FIELD_CODES, f"lambdas.http.dialects.removebg.FIELD_CODES has no {field!r}"


def _commands() -> dict[str, typer.core.TyperCommand]:
    """The commands of `maskdrop` by their full name, such as "keys create"; without the groups."""
    found: dict[str, typer.core.TyperCommand] = {}
    for name, command in vars(typer.main.get_command(app))["commands"].items():
        nested = vars(command).get("commands")
        found |= {f"{name} {inner}": one for inner, one in nested.items()} if nested else {name: command}
    return found


@pytest.mark.parametrize("name", sorted(_commands()))
def test_every_command_argument_and_option_has_help(name: str) -> None:
    """The command line reference of the site is made from it."""
    command = _commands()[name]
    assert command.help
    shown = [parameter for parameter in map(vars, command.params) if not parameter["hidden"]]
    assert [parameter["name"] for parameter in shown if not parameter.get("help")] == []


def test_every_command_is_in_the_help_of_maskdrop() -> None:
    shown = CliRunner(env={"COLUMNS": "120"}).invoke(app, ["--help"]).output
    listed = re.findall(r"^│ ([a-z]+) ", shown, re.MULTILINE)
    check_rows({name.split()[0] for name in _commands()}, {"maskdrop --help": listed})


def test_every_check_of_doctor_is_documented() -> None:
    rows = [cells[0] for cells in page_table("docs/operations.md", "| check | fails the deploy |")]
    check_rows([check.name for check in (*ESSENTIAL, *CHECKS)], {"the table of docs/operations.md": rows})


def test_every_make_target_is_on_a_page() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = "\n".join(page.read_text() for page in PAGES)
    check_rows(targets, {"the pages": {name for name in targets if f"`make {name}`" in text} | {"help"}})


# Settings


@pytest.mark.parametrize("kind", [Settings, ServerSettings, TrainingSettings])
def test_every_setting_with_a_default_is_described_in_the_docstring(kind: type) -> None:
    optional = {field.name for field in fields(kind) if field.default is not field.default_factory}  # both MISSING
    check_rows(optional, {f"the docstring of {kind.__name__}": _described(optional, kind.__doc__ or "")})


def _described(names: set[str], docstring: str) -> set[str]:
    """The names that a docstring describes, as in `name: …` and `name, other: …`."""
    return {name for name in names if re.search(rf"\b{name}\b[\w, ]*:", docstring)}


def _attributes_read_in(*folders: str, besides: str = "") -> set[str]:
    """Every name that the code of these folders reads as an attribute, without the file `besides`."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if path.name != besides]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize(
    ("kind", "folders"), [(Settings, ("lambdas", "maskdrop")), (ServerSettings, ("sagemaker_model",))]
)
def test_every_setting_is_read(kind: type, folders: tuple[str, ...]) -> None:
    names = {field.name for field in fields(kind)}
    check_rows(names, {f"the code of {' and '.join(folders)}": names & _attributes_read_in(*folders)})


def test_every_setting_of_a_stage_is_described_and_read() -> None:
    names = {*Stage.model_fields}
    used = _attributes_read_in("infra", besides="stages.py") | _attributes_read_in("cli")
    properties = (ROOT / "infra" / "stages.py").read_text().partition("    @property")[2]
    check_rows(
        names,
        {
            "the docstring of Stage": _described(names, Stage.__doc__ or ""),
            "the code of infra and cli": names & (used | set(re.findall(r"self\.(\w+)", properties))),
        },
    )


def test_every_option_of_a_stage_is_documented_with_its_default() -> None:
    rows = page_rows("docs/operations.md", "| option | effect | default |")
    check_rows({*Stage.model_fields} - {"name"}, {"the options of docs/operations.md": rows})
    defaults = {option: _plain(getattr(Stage(name="dev"), option)) for option in rows}
    assert {option: _toml(cells[1]) for option, cells in rows.items()} == defaults


def _toml(cell: str) -> Any:
    """The value of a table cell: a code span in TOML, or "none"."""
    return None if cell == "none" else tomllib.loads(f"value = {cell.strip('`')}")["value"]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_every_network_that_can_be_trained_is_in_every_table() -> None:
    """Parses objectives.py, because importing it needs torch."""
    tree = ast.parse((ROOT / "sagemaker_model" / "training" / "objectives.py").read_text())
    (objectives,) = [
        ast.unparse(node.value)
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "_NETWORKS" and node.value
    ]
    argument = next(parameter for parameter in _commands()["train"].params if parameter.name == "network")
    check_rows(
        SETTINGS,
        {
            "sagemaker_model.training.objectives._NETWORKS": re.findall(r"'([\w-]+)':", objectives),
            "the help of `maskdrop train`": {
                name for name in SETTINGS if name in re.findall(r"[\w-]+", str(vars(argument)["help"]))
            },
            "the networks of docs/training.md": page_rows("docs/training.md", "| network"),
        },
    )


def test_every_mode_of_the_interactive_endpoint_is_documented() -> None:
    rows = page_rows("docs/operations.md", "| `interactive` | engines")
    check_rows(get_args(Interactive), {"docs/operations.md": {row.strip('"') for row in rows}})


def test_every_mode_of_the_bulk_endpoint_is_in_every_table() -> None:
    rows = page_rows("docs/operations.md", "| `bulk` | engines")
    check_rows(
        get_args(Bulk),
        {
            "docs/operations.md": {row.strip('"') for row in rows},
            "infra.stages.BUNDLE_MAX": BUNDLE_MAX,
            "infra.stages.IMAGES_PER_SECOND": IMAGES_PER_SECOND,
        },
    )


def test_every_scope_of_a_key_is_documented() -> None:
    scopes = page_text("docs/operations.md", "| scope |")
    check_rows(get_args(Scope), {"docs/operations.md": {name for name in get_args(Scope) if f"`{name}`" in scopes}})


# Evaluation


def test_every_measure_is_in_every_table() -> None:
    names = [field.name for field in fields(Scores)]
    result = Result("id", "", 0.5, 0.5, Scores(**dict.fromkeys(names, 1.0)))
    headings = " ".join(heading for table in tables([result, replace(result, subject=0)]) for heading in table.header)
    documented = " ".join(row[0] for row in page_table("docs/operations.md", "| metric | definition |"))
    check_rows(
        names,
        {
            "sagemaker_model.evaluation.summary": {name for name in names if _is_in(name, headings)},
            "docs/operations.md": {name for name in names if _is_in(name, documented)},
        },
    )


def test_every_figure_of_a_detector_is_a_column() -> None:
    names = {field.name for field in fields(DetectionScores)} - {"classes", "ar_small", "ar_medium", "ar_large"}
    check_rows(names, {"sagemaker_model.evaluation.detection_run.FIGURES": set(FIGURES.values())})


def test_every_form_of_detection_data_is_documented() -> None:
    rows = {row[0].strip("`") for row in page_table("docs/detector.md", "| form | files | boxes |")}
    check_rows(get_args(BoxKind), {"docs/detector.md": rows})


def _is_in(name: str, text: str) -> bool:
    """Whether a text has the measure as a word: `boundary_f` is "boundary F"."""
    return re.search(rf"\b{name.replace('_', ' ')}\b", text, re.IGNORECASE) is not None


# Contributing guide and releases


def test_every_file_and_test_of_the_contributing_guide_exists() -> None:
    spans = code_spans((ROOT / "CONTRIBUTING.md").read_text())
    paths = {span for span in spans if re.fullmatch(r"[\w./-]+(/|\.py|\.toml|\.md)", span) and "NAME" not in span}
    check_rows(paths, {"the repository": {path for path in paths if (ROOT / path).exists()}})
    tests = {span for span in spans if re.fullmatch(r"test_\w+", span)}
    check_rows(tests, {"tests/contract/test_totality.py": tests & {*globals()}})


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (latest, *_) = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert project["version"] == maskdrop.__version__ == latest
