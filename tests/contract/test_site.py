"""The pages of the documentation site that docs/pages.py makes."""

import pytest
from typer.main import get_command

from cli.app import app
from docs.api_reference import api_page, type_of
from docs.pages import cli_page, for_site
from lambdas.http.openapi import document, operations

API = "\n".join(api_page(document()))


@pytest.mark.parametrize(("method", "path"), operations())
def test_the_api_page_has_a_section_for_every_operation(method: str, path: str) -> None:
    assert f"\n## `{method.upper()} {path}` " in API


def test_every_link_within_the_api_page_has_its_heading() -> None:
    targets = {part.partition(")")[0] for part in API.split("](#")[1:]} - {"error-codes"}
    assert targets
    assert [target for target in targets if f" {{#{target}}}" not in API] == []
    assert "\n## Error codes\n" in API


def test_the_api_page_has_every_error_code_of_the_document() -> None:
    assert "| `invalid_options` | 400 | no |" in API
    assert "| `rate_limit_exceeded` | 429 | yes |" in API


def test_the_cli_page_has_a_section_for_every_command_and_no_path_of_this_machine() -> None:
    page = cli_page()
    for name, command in vars(get_command(app))["commands"].items():
        assert f"\n## `maskdrop {name}`\n" in page
        for nested in vars(command).get("commands", {}):
            assert f"\n### `maskdrop {name} {nested}`\n" in page
    assert "default: /" not in page


@pytest.mark.parametrize(
    ("source", "link", "on_the_site"),
    [
        ("README.md", "[API](docs/operations.md)", "[API](operations.md)"),
        ("README.md", "![x](docs/images/example.jpg)", "![x](images/example.jpg)"),
        ("docs/training.md", "![x](images/roofline.png)", "![x](images/roofline.png)"),
        ("docs/models.md", "[samples](../samples/README.md)", "[samples](samples.md)"),
        ("docs/models.md", "[the list](../sagemaker_model/weights/weights.toml)", "the list"),
        ("docs/training.md", "[a](operations.md#how-good)", "[a](operations.md#how-good)"),
        ("docs/security.md", "[report](../SECURITY.md)", "[report](security-policy.md)"),
        ("README.md", "[a](docs/tutorials/drop-folder.md)", "[a](drop-folder.md)"),
        ("docs/tutorials/drop-folder.md", "[a](../console.md#views)", "[a](console.md#views)"),
        ("docs/tutorials/drop-folder.md", "![x](../images/console/x.png)", "![x](images/console/x.png)"),
        ("docs/models.md", "[web](https://example.com/a)", "[web](https://example.com/a)"),
    ],
)
def test_relative_links_are_rewritten_for_the_site(source: str, link: str, on_the_site: str) -> None:
    assert for_site(f"See {link}.", source) == f"See {on_the_site}."


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"$ref": "#/components/schemas/Job"}, "[Job](#job)"),
        ({"type": "integer", "minimum": 1, "maximum": 9}, "integer from 1 to 9"),
        ({"type": ["string", "null"], "maxLength": 5}, "string of up to 5 characters or null"),
        ({"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}, "array (4) of number"),
        ({"enum": ["a", "b"]}, "`a`, `b`"),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "boolean or null"),
        ({"type": "string", "format": "binary"}, "bytes"),
    ],
)
def test_a_schema_is_described_in_words(schema: dict[str, object], text: str) -> None:
    assert type_of(schema) == text
