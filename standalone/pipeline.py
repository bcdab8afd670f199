"""The interactive endpoint of `maskdrop serve`: the model server's pipeline in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from maskdrop import predecessor as requests
from maskdrop.errors import DeadlineExceeded
from maskdrop.wire import Facts, ImageResponse, Invocation, Outcome
from sagemaker_model.cutout import Cutout
from sagemaker_model.serving import predecessor
from sagemaker_model.serving.runtime import Runtime, known_error

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """Implements `maskdrop.services.Interactive` for the threads of the handlers: the event loop of `runtime` processes
    their images.

    device: named in the facts of a result. request_s: seconds for one image, with the wait for a worker.
    """

    runtime: Runtime
    loop: asyncio.AbstractEventLoop
    device: str
    request_s: float

    def cut_out(self, image: bytes, invocation: Invocation) -> ImageResponse:
        return self._wait(self._cut_out(image, invocation))

    def segment_box(self, request: bytes) -> bytes:
        image, options = requests.parse(json.loads(request))

        async def segment() -> bytes:
            cutout = await self.runtime.cut_out(image, options, write=predecessor.write_mask)
            return predecessor.response(cutout.data)

        return self._wait(segment())

    async def _cut_out(self, image: bytes, invocation: Invocation) -> ImageResponse:
        options, overflow = invocation.options, invocation.overflow
        try:
            cutout = await self.runtime.cut_out(image, options)
            facts = facts_of(cutout, options.engine, self.device)
            if cutout.parts and overflow:
                result, results = await self.runtime.write_overflow(cutout, overflow)
                response = ImageResponse(facts, "application/json", result, results)
            else:
                response = ImageResponse(facts, cutout.content_type, cutout.data)
        except Exception as error:
            self.runtime.metrics.count(Outcome("", options.engine, error=known_error(error).info))
            raise
        outcome = Outcome("", options.engine, subject=cutout.subject, warnings=cutout.warnings, timings=cutout.timings)
        self.runtime.metrics.count(outcome)
        return response

    def _wait(self, processing: Coroutine[Any, Any, T]) -> T:
        """Returns the result of `processing`, which runs on the event loop. Raises DeadlineExceeded."""

        async def limited() -> T:
            try:
                async with asyncio.timeout(self.request_s):
                    return await processing
            except TimeoutError as error:
                raise DeadlineExceeded(
                    f"The image was not processed within {self.request_s:g} s: the server is busy. Retry later."
                ) from error

        return asyncio.run_coroutine_threadsafe(limited(), self.loop).result()


def facts_of(cutout: Cutout, engine: str, device: str) -> Facts:
    """Returns the facts of a result. engine: that of the options."""
    return Facts(
        engine=cutout.engine or engine,
        device=device,
        width=cutout.width,
        height=cutout.height,
        full=cutout.full_size,
        subject=cutout.subject,
        place=cutout.box_in_result,
        warnings=cutout.warnings,
        timings=cutout.timings,
    )
