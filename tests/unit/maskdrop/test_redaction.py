"""No secret reaches a log: tokens in URLs, webhook secrets and API keys."""

import json
import logging
import re
from pathlib import Path

import pytest

from lambdas import observe
from maskdrop.redaction import RedactingFormatter, redacted

ROOT = Path(__file__).resolve().parents[3]
CODE = ("maskdrop", "lambdas", "standalone", "sagemaker_model", "local", "cli")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "posting to https://hooks.example.com/a?token=secret failed",
            "posting to https://hooks.example.com/... failed",
        ),
        ("https://hooks.slack.com/services/T0/B0/secret", "https://hooks.slack.com/..."),
        ("http://user:secret@host:8080/a", "http://host:8080/..."),
        ("HTTPS://HOST?secret", "HTTPS://HOST/..."),
        ("(https://api.telegram.org/file/bot1:secret/photo.jpg)", "(https://api.telegram.org/..."),
        ('{"url": "https:\\/\\/host\\/secret"}', '{"url": "https:\\/\\/host/..."}'),
        ("'https://host/a#secret', b", "'https://host/...', b"),
        ("https://one/secret https://two/secret", "https://one/... https://two/..."),
        ("listening on http://127.0.0.1:8080", "listening on http://127.0.0.1:8080"),
        ("see http://127.0.0.1:8080/ now", "see http://127.0.0.1:8080/ now"),
        ("s3://bucket/bundles/in/1.json", "s3://bucket/bundles/in/1.json"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_..."),
        ("key maskdrop_" + "A1-_" * 11, "key maskdrop_..."),
        ("logger maskdrop_client.flows", "logger maskdrop_client.flows"),
    ],
)
def test_urls_are_cut_after_their_host_and_secrets_are_left_out(text: str, expected: str) -> None:
    assert redacted(text) == expected


def test_every_field_and_traceback_of_a_function_s_log_line_is_redacted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "redaction")  # a logger that writes to this test's output
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", "INFO")
    observe.logger.cache_clear()
    try:
        observe.logger().info(
            "https://host/secret1", extra={"url": "https://host/?secret2", "body": '"https://host/secret3" and more'}
        )
        try:
            raise ValueError("https://host/secret4")
        except ValueError:
            observe.logger().exception("failed")
    finally:
        observe.logger.cache_clear()
    lines = capsys.readouterr().out
    found = [json.loads(line) for line in lines.splitlines()]
    assert [line["level"] for line in found] == ["INFO", "ERROR"]
    assert re.findall("secret[1-4]", lines) == []
    assert found[0]["body"] == '"https://host/..." and more'


def test_log_lines_of_programs_are_redacted_with_their_tracebacks() -> None:
    try:
        raise ValueError("https://host/secret")
    except ValueError as error:
        record = logging.makeLogRecord(
            {
                "msg": "fetching %s",
                "args": ("https://host/secret",),
                "exc_info": (ValueError, error, error.__traceback__),
            }
        )
    assert "secret" not in RedactingFormatter().format(record).replace('https://host/secret")', "")


def test_every_program_logs_through_the_redaction() -> None:
    found = {
        str(path.relative_to(ROOT))
        for folder in CODE
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"basicConfig\(|\bLogger\(|StreamHandler\(|FileHandler\(|dictConfig\(", path.read_text())
    }
    assert found == {"maskdrop/redaction.py", "lambdas/observe.py"}
