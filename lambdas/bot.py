"""The Telegram bot.

- API Gateway sends each update of Telegram's webhook: it is authenticated, counted, and put on the queue of the bot.
  The reply, such as "On its way.", is the response.
- The queue of the bot sends the images of chats, which become jobs, and the events of their finished jobs, whose
  results are sent to the chat.

The rules are in maskdrop/bot.py.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect
from lambdas.observe import logger, observed
from maskdrop import bot as rules
from maskdrop.access import add_usage
from maskdrop.bot import Bot, BotThrottled, ChatUnreachable, ImageRequest, Place
from maskdrop.errors import InputError, MaskdropError, NotAllowed, RequestInProgress
from maskdrop.flow import enqueue
from maskdrop.idempotency import once
from maskdrop.interactive import check_edit, check_engine
from maskdrop.job import Job, Result, Source, queued, uploads_of
from maskdrop.output import CONTENT_TYPE
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.webhook import RETRY_S, message_id

SECRET_HEADER = "x-telegram-bot-api-secret-token"  # noqa: S105  name of the header

STICKER_MAX = 512 * 1024
"""Maximum size of a static sticker in bytes. A larger result is sent as a document."""

LINK_S = 3600
"""Seconds for which the presigned URL of a result is valid that is too large for Telegram."""

SENT_KEPT = timedelta(days=14)
"""Time for which a sent result is remembered: the retention of the queue."""

DELAY_MAX_S = 900
"""Maximum delay of an SQS message in seconds."""


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:  # noqa: ARG001  Lambda passes two
    now = datetime.now(UTC)
    if "Records" in event:
        return process_messages(event, connect.settings(), connect.services(), connect.bot(), now)
    return process_webhook(event, connect.services(), connect.bot(), now)


def process_webhook(event: Mapping[str, Any], services: Services, bot: Bot, now: datetime) -> dict[str, Any]:
    """Processes one update and returns the proxy response.

    Telegram repeats an update whose response is not 2xx or is lost. It then gets the same response again, and the image
    is not processed twice.
    """
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    try:
        credentials = bot.credentials()
        expected, given = credentials.secret.encode(), str(headers.get(SECRET_HEADER, "")).encode()
        if not expected or not hmac.compare_digest(given, expected):
            logger().warning("update refused", extra={"why": "The secret token does not match."})
            return _http(NotAllowed.status, {"error": NotAllowed("The secret token does not match.").info.to_json()})
        body = event.get("body") or ""
        update = json.loads(base64.b64decode(body) if event.get("isBase64Encoded") else body)
        identifier = int(update["update_id"])

        def respond() -> dict[str, Any]:
            response = rules.respond(
                update, credentials.username, bot.settings, services.presets, services.registry, now
            )
            if request := response.request:
                delay_s = rules.ALBUM_DELAY_S if request.album and not request.caption else 0
                bot.queue.send([json.dumps({"telegram": request.to_json()})], delay_s=delay_s)
            fields = {"update": identifier, "image": request is not None, "replied": bool(response.reply)}
            logger().info("update", extra={**fields, "chat": response.place.chat if response.place else None})
            return {"method": response.method()}

        stored = once(services.registry, rules.OWNER_PREFIX, str(identifier), {"update": identifier}, now, respond)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # Telegram would repeat it, with the same outcome.
        logger().warning("unreadable update", extra={"error": type(error).__name__})
        return _http(200, {})
    except MaskdropError as error:
        level = logger().info if isinstance(error, RequestInProgress) else logger().warning
        level("update returned", extra={"code": error.code, "why": error.message})
        return _http(503, {"error": error.info.to_json()})
    return _http(200, stored["method"] or {})


def _http(status: int, body: Mapping[str, Any]) -> dict[str, Any]:
    return {"statusCode": status, "headers": {"Content-Type": "application/json"}, "body": json.dumps(body)}


def process_messages(
    event: Mapping[str, Any], settings: Settings, services: Services, bot: Bot, now: datetime
) -> dict[str, Any]:
    """Processes images and events. Returns the partial batch response: the messages to retry."""
    failed: list[str] = []
    for record in event["Records"]:
        attempt = int(record["attributes"]["ApproximateReceiveCount"])
        body = json.loads(record["body"])
        try:
            if "telegram" in body:
                _start(ImageRequest.from_json(body["telegram"]), settings, services, bot, now)
            else:
                _finish(body["detail"], services, bot, now)
        except ChatUnreachable as error:
            logger().warning("chat unreachable", extra={"why": error.message})
        except BotThrottled as error:
            # A new message, because a delivery that Telegram refuses is not a failed attempt.
            bot.queue.send([record["body"]], delay_s=min(error.retry_after, DELAY_MAX_S))
            logger().info("bot throttled", extra={"wait": error.retry_after})
        except MaskdropError as error:
            # After the last attempt, SQS moves the message to the dead-letter queue at its next receive.
            wait = RETRY_S[attempt - 1] if attempt <= len(RETRY_S) else 0
            logger().warning("message retried", extra={"why": error.message, "attempt": attempt, "wait": wait})
            if not wait and "telegram" in body:
                _apologise(ImageRequest.from_json(body["telegram"]), bot)
            bot.queue.hide(record["receiptHandle"], seconds=wait)
            failed.append(record["messageId"])
    return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}


def _start(request: ImageRequest, settings: Settings, services: Services, bot: Bot, now: datetime) -> None:
    """Stores the image of a chat and queues its job. Repeatable: the image has one key, and so one job."""
    try:
        choice = rules.choice_of(rules.caption_of(request, services.registry), services.presets)
        check_engine(choice.options, settings)
        check_edit(choice.options, services)
        bucket, key = settings.inbox, request.key(uploads_of(request.owner))
        stored = services.storage.head(bucket, key)
        if stored is None:
            image = bot.messenger.download(request.file)
            services.storage.write(bucket, key, image.body, image.content_type)
            stored = services.storage.head(bucket, key)
    except InputError as error:
        logger().info("image refused", extra={"update": request.update, "code": error.code})
        text = rules.text_of_error(error.info)
        _send(request.place, lambda place: bot.messenger.send_text(place, text))
        return
    source = Source(bucket, key, stored.version_id if stored else "", stored.bytes if stored else None)
    job = enqueue(queued(source, choice.preset, choice.options, now, owner=request.owner), services)
    if job.created_at == now:
        add_usage(services.registry, request.owner, now, pictures=1)
    logger().info("image queued", extra={"update": request.update, "job_id": job.id, "preset": choice.preset})


def _finish(event: Mapping[str, Any], services: Services, bot: Bot, now: datetime) -> None:
    """Sends the result of a finished job to its chat, once for each event. If the function ends between sending and
    recording that, the result is sent again."""
    name = f"sent#{message_id(event)}"
    if services.registry.get("chat", name) is not None:
        return
    job = Job.from_json(event["data"])
    try:
        _send_result(job, services, bot)
    except ChatUnreachable as error:
        logger().warning("chat unreachable", extra={"job_id": job.id, "why": error.message})
    services.registry.put("chat", name, {}, expires_at=now + SENT_KEPT)
    logger().info("result sent", extra={"job_id": job.id, "state": job.state})


def _send_result(job: Job, services: Services, bot: Bot) -> None:
    place = rules.place_of(job)
    if job.state != "done" or job.result is None:
        _send(place, lambda place: bot.messenger.send_text(place, rules.text_of_error(job.error)))
    elif not rules.has_subject(job):
        _send(place, lambda place: bot.messenger.send_text(place, rules.NO_SUBJECT))
    else:
        caption = rules.caption_of_result(job)
        for result in [item.result for item in job.results] or [job.result]:
            _send_file(place, job, result, caption, services, bot)
            caption = ""  # only of the first file


def _send_file(place: Place, job: Job, result: Result, caption: str, services: Services, bot: Bot) -> None:
    messenger = bot.messenger
    if result.bytes > rules.UPLOAD_MAX:
        link = services.storage.link(result.bucket, result.key, seconds=LINK_S)
        text = f"The result is too large for Telegram. Download it within {LINK_S // 3600} hour: {link}"
        _send(place, lambda place: messenger.send_text(place, text))
        return
    data = services.storage.read(result.bucket, result.key)
    if job.preset == rules.STICKER_PRESET and result.format == "webp" and len(data) <= STICKER_MAX:
        _send(place, lambda place: messenger.send_sticker(place, data))
        if caption:
            _send(place, lambda place: messenger.send_text(place, caption))
        return
    extension = PurePosixPath(result.key).suffix
    name = f"{PurePosixPath(job.source.key).stem}{extension}"
    content_type = CONTENT_TYPE[job.options.output.format] if result.format != "json" else "application/json"
    _send(place, lambda place: messenger.send_document(place, data, name, content_type, caption))


def _send(place: Place, send: Callable[[Place], None]) -> None:
    """Sends a message, to the supergroup where the group has become one."""
    try:
        send(place)
    except ChatUnreachable as error:
        if error.moved_to is None:
            raise
        send(replace(place, chat=error.moved_to))


def _apologise(request: ImageRequest, bot: Bot) -> None:
    """Reports an image that failed after the last attempt. The Bot API may be unavailable: an error is only logged."""
    try:
        _send(request.place, lambda place: bot.messenger.send_text(place, rules.SERVER_ERROR))
    except MaskdropError as error:
        logger().warning("reply failed", extra={"update": request.update, "why": error.message})
