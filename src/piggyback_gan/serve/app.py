"""The application: its addresses, its page, and every error as a problem document."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from piggyback_gan.serve.catalogue import Catalogue
from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.problems import MEDIA_TYPE, Problem
from piggyback_gan.serve.responses import NO_CACHE
from piggyback_gan.serve.routes import make_routes
from piggyback_gan.serve.schemas import TranslateQuery
from piggyback_gan.serve.service import Service

_PAGE = Path(__file__).with_name("page")


def make_app(catalogue: Catalogue, options: ServeOptions) -> FastAPI:
    """The application that serves a bank; who may ask is not its concern.

    Args:
        catalogue: the bank's tasks.
        options: limits and batching.
    """
    service = Service(catalogue, options)
    app = FastAPI(
        title="Piggyback GAN",
        summary="Image-to-image translators of one bank.",
        version=version("piggyback-gan"),
        docs_url=None,
        redoc_url=None,
        lifespan=service.at_work,
    )
    _add_handlers(app, service)
    _add_page(app)
    app.include_router(make_routes(service))
    return app


def _add_handlers(app: FastAPI, service: Service) -> None:
    """Every error is a problem document."""

    def answer(problem: Problem, headers: dict[str, str] | None = None) -> Response:
        service.metrics.problems.labels(problem.name).inc()
        return Response(
            problem.render(),
            problem.status,
            {"Cache-Control": "no-store", **problem.headers, **(headers or {})},
            MEDIA_TYPE,
        )

    @app.exception_handler(Problem)
    async def _problem(request: Request, problem: Problem) -> Response:
        return answer(problem)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(Problem("invalid-request", "; ".join(map(_said, error.errors()))))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        name = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "bad-request")
        detail = {
            "not-found": "there is no such address; GET /openapi.json tells those that there are",
            "method-not-allowed": f"this address does not know {request.method[:20]}",
        }
        said = Problem(name, detail.get(name, str(error.detail)))
        return answer(said, dict(error.headers or {}))

    @app.exception_handler(ClientDisconnect)
    async def _gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    @app.exception_handler(Exception)
    async def _failed(request: Request, error: Exception) -> Response:
        return answer(Problem("server-error", "the server failed; its log says why"))


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def _page() -> FileResponse:
        return FileResponse(_PAGE / "index.html", headers=NO_CACHE)

    app.mount("/page", _Files(directory=_PAGE))


def _said(error: Mapping[str, Any]) -> str:
    """What is wrong with a value of the address or a header."""
    name = ".".join(map(str, error["loc"][1:]))[:80]
    if error["type"] == "extra_forbidden":
        return (
            f"{name}: there is no such option; there are {', '.join(TranslateQuery.model_fields)}"
        )
    return f"{name}: {error['msg']}"


class _Files(StaticFiles):
    """The page's files: asked for again each time, and sent if they have changed."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """A file, or that it is as it was."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(NO_CACHE)
        return response
