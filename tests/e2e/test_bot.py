"""Tests the Telegram bot with the stub of the Bot API: from an update to the document in the chat."""

from __future__ import annotations

import io
from typing import Any

import httpx2
import pytest
from PIL import Image
from typer.testing import CliRunner

from cli import bot
from tests.bot_api import RunningBotApi
from tests.e2e.conftest import Running, wait_until

TOKEN = "12345:" + "t0ken" * 7
CHAT = 7


def update(number: int, **content: Any) -> dict[str, Any]:
    message = {"message_id": 100 + number, "chat": {"id": CHAT, "type": "private"}, "date": 0, **content}
    return {"update_id": number, "message": message}


def test_the_results_of_a_chat_are_documents_and_stickers(
    running: Running, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    process_chat(running, photo, monkeypatch)


def process_chat(running: Running, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installs the bot, sends updates and waits for the results."""
    for name, value in running.config.to_env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(bot.TOKEN, TOKEN)
    installed = CliRunner().invoke(bot.app, ["install"])
    assert installed.exit_code == 0, installed.output
    api = RunningBotApi(running.config.bot_api_url)
    sent_before = len(api.control()["sent"])

    def sent(method: str) -> list[dict[str, Any]]:
        return [one for one in api.control()["sent"][sent_before:] if one["method"] == method]

    sizes = [{"file_id": api.upload(photo), "width": 512, "height": 512}]
    first = update(1, photo=sizes)
    assert api.deliver(first, secret="forged")["status"] == 403
    for one in (first, first, update(2, photo=sizes, caption="sticker"), update(3, text="/help")):
        assert api.deliver(one) == {"status": 200, "method": "sendMessage"}
    video = {"file_id": api.upload(b"\0\0\0\x18ftypmp42"), "file_name": "a.png", "file_size": 12}
    api.deliver(update(4, document=video))
    wait_until(lambda: bool(sent("sendDocument") and sent("sendSticker")), "the results", 90)
    wait_until(lambda: any("unsupported_format" in one["text"] for one in sent("sendMessage")), "the refusal", 90)
    [document], [sticker] = sent("sendDocument"), sent("sendSticker")
    assert (document["name"], document["chat_id"]) == ("photo.png", str(CHAT))
    assert '"message_id": 101' in document["reply_parameters"]
    assert '"message_id": 102' in sticker["reply_parameters"]
    assert download(running, document).mode == "RGBA"
    assert download(running, document).size == (512, 512)
    assert download(running, sticker).format == "WEBP"
    assert max(download(running, sticker).size) == 512
    log = running.log("bot")
    assert "update refused" in log
    assert TOKEN not in log


def download(running: Running, sent: dict[str, Any]) -> Image.Image:
    url = f"{running.config.bot_api_url}/file/bot{TOKEN}/photos/{sent['file_id']}.jpg"
    return Image.open(io.BytesIO(httpx2.get(url, trust_env=False).content))
