"""The routes below /v1, and those for health and metrics."""

import asyncio
import hashlib
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response

from piggyback_gan.serve import metrics, schemas
from piggyback_gan.serve.limits import CountedResponse
from piggyback_gan.serve.problems import KINDS, Problem
from piggyback_gan.serve.responses import FORM, NO_CACHE, ZIP, as_form, as_zip
from piggyback_gan.serve.schemas import TRANSLATE_BODY, TRANSLATED, TranslateQuery, problems
from piggyback_gan.serve.service import Service
from piggyback_gan.serve.translator import Translated

_PROBLEMS_OF_OTHERS = ("not-found", "no-sample", "method-not-allowed", "not-ready")

TaskName = Annotated[str, Path(description="the task's name", examples=["maps"])]


def make_routes(service: Service) -> APIRouter:
    """Build the routes of a service."""
    router = APIRouter()
    _add_state(router, service)
    _add_tasks(router, service)
    _add_translate(router, service)
    return router


def _add_state(router: APIRouter, service: Service) -> None:
    @router.get("/healthz", tags=["state"])
    async def healthz() -> schemas.Status:
        """Liveness: the server answers."""
        return schemas.Status(status="ok")

    @router.get("/readyz", tags=["state"], responses=problems("not-ready"))
    async def readyz() -> schemas.Status:
        """Readiness: the server can translate, and the bank exists."""
        service.require_ready()
        return schemas.Status(status="ready")

    @router.get(
        "/metrics",
        tags=["state"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **problems("unauthorized")},
    )
    async def get_metrics() -> Response:
        """Metrics of requests, durations, queue, batches and memory, for Prometheus."""
        service.metrics.tasks.set(len(await service.catalogue.look()))
        return Response(service.metrics.render(), media_type=metrics.MEDIA_TYPE)


def _add_tasks(router: APIRouter, service: Service) -> None:
    @router.get(
        "/v1/tasks",
        tags=["tasks"],
        response_model=schemas.TaskList,
        responses={
            304: {"description": "The tasks have not changed since the ETag"},
            **problems("unauthorized", "wrong-host"),
        },
    )
    async def tasks(if_none_match: Annotated[str | None, Header()] = None) -> Response:
        """The bank's current tasks, and the server's limits."""
        found = await service.catalogue.look()
        bank = service.catalogue.bank
        with_sample = await asyncio.to_thread(service.previews.available, bank, found.values())
        listed = schemas.TaskList(
            tasks=[schemas.Task.of(task, name in with_sample) for name, task in found.items()],
            limits=schemas.Limits.model_validate(service.options),
        )
        content = listed.model_dump_json().encode()
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {"ETag": tag, **NO_CACHE}
        if if_none_match is not None and tag in if_none_match:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type="application/json")

    @router.get(
        "/v1/tasks/{task}/sample",
        tags=["tasks"],
        response_class=Response,
        responses={
            200: {"content": {"image/png": {}}},
            **problems("unknown-task", "no-sample", "unauthorized", "wrong-host"),
        },
    )
    async def sample(task: TaskName) -> Response:
        """A sample picture of a task: input and output side by side, PNG, 8-bit RGB."""
        served = await service.catalogue.task(task)
        picture = await service.previews.get(service.catalogue.bank, served)
        if picture is None:
            raise Problem("no-sample", "this task has no sample picture")
        return Response(picture, media_type="image/png", headers=NO_CACHE)


def _add_translate(router: APIRouter, service: Service) -> None:
    @router.post(
        "/v1/tasks/{task}/translate",
        tags=["tasks"],
        response_class=Response,
        responses={
            200: TRANSLATED,
            **problems(*(kind for kind in KINDS if kind not in _PROBLEMS_OF_OTHERS)),
        },
        openapi_extra=TRANSLATE_BODY,
    )
    async def translate(
        request: Request, task: TaskName, query: Annotated[TranslateQuery, Query()]
    ) -> Response:
        """Translate an image, or several images of a form."""
        served, made = await service.translate(request, task, query)
        headers = {"Pbgan-Task-Sha256": served.sha256, "Cache-Control": "no-store"}
        if len(made) == 1:
            content, media_type = _one(made[0], headers)
        else:
            headers["Pbgan-Failed"] = str(sum(one.failed for one in made))
            files = [one.output for one in made]
            if FORM in request.headers.get("accept", ""):
                parts = [("image", file) for file in files]
                content, media_type = await asyncio.to_thread(as_form, parts)
            else:
                content, media_type = await asyncio.to_thread(as_zip, files), ZIP
        timeout = service.options.timeout
        return CountedResponse(content, media_type, headers, budget=service.budget, timeout=timeout)


def _one(made: Translated, headers: dict[str, str]) -> tuple[bytes, str]:
    """Return the body and media type for a single translation; its file name goes into the headers."""
    output = made.output
    if made.views:
        names = ("output", "input_view", "output_view")
        return as_form(list(zip(names, (output, *made.views), strict=True)))
    headers["Content-Disposition"] = output.disposition
    return output.content, output.media_type
