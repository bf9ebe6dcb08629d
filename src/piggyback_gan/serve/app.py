"""The FastAPI application: routes, page, and problem documents for every error."""

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
from piggyback_gan.serve.problems import Problem
from piggyback_gan.serve.responses import NO_CACHE
from piggyback_gan.serve.routes import make_routes
from piggyback_gan.serve.schemas import TranslateQuery
from piggyback_gan.serve.service import Service

_PAGE = Path(__file__).with_name("page")


def make_app(catalogue: Catalogue, options: ServeOptions) -> FastAPI:
    """Build the application that serves a bank; access is checked in `middleware`.

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
        lifespan=service.running,
    )
    _add_handlers(app, service)
    _add_page(app)
    app.include_router(make_routes(service))
    return app


def _add_handlers(app: FastAPI, service: Service) -> None:
    def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
        service.metrics.problems.labels(problem.name).inc()
        return problem.response(headers)

    @app.exception_handler(Problem)
    async def _problem(request: Request, problem: Problem) -> Response:
        return respond(problem)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return respond(Problem("invalid-request", "; ".join(map(_describe, error.errors()))))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        name = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "bad-request")
        detail = {
            "not-found": "this address does not exist: GET /openapi.json lists the addresses",
            "method-not-allowed": f"this address does not accept {request.method[:20]}",
        }
        problem = Problem(name, detail.get(name, str(error.detail)))
        return respond(problem, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def _gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # no client is left to read it

    @app.exception_handler(Exception)
    async def _failed(request: Request, error: Exception) -> Response:
        return respond(Problem("server-error", "the server failed: see its log"))


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def _page() -> FileResponse:
        return FileResponse(_PAGE / "index.html", headers=NO_CACHE)

    app.mount("/page", _Files(directory=_PAGE))


def _describe(error: Mapping[str, Any]) -> str:
    """Describe what is wrong with a query option or a header."""
    name = ".".join(map(str, error["loc"][1:]))[:80]
    if error["type"] == "extra_forbidden":
        return f"{name}: unknown option: choose from {', '.join(TranslateQuery.model_fields)}"
    return f"{name}: {error['msg']}"


class _Files(StaticFiles):
    """The page's files; browsers revalidate them on each visit."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Respond with a file, or with 304 if it has not changed."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(NO_CACHE)
        return response
