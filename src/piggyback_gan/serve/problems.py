"""Errors as problem documents of RFC 9457 (Problem Details for HTTP APIs)."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
_PREFIX = "urn:pbgan:problem:"


KINDS = {
    "bad-request": (400, "Malformed request"),
    "unauthorized": (401, "Token required"),
    "cross-origin": (403, "Cross-origin request"),
    "not-found": (404, "Address not found"),
    "unknown-task": (404, "Task not found"),
    "no-sample": (404, "No sample picture"),
    "method-not-allowed": (405, "Method not allowed"),
    "slow-upload": (408, "Upload too slow"),
    "too-large": (413, "Body too large"),
    "too-many-pixels": (413, "Image too large"),
    "too-many-files": (413, "Too many files"),
    "wrong-host": (421, "Host name not allowed"),
    "not-an-image": (422, "Not a readable image"),
    "wrong-image": (422, "Image does not fit the task"),
    "invalid-request": (422, "Invalid request"),
    "none-translated": (422, "No file could be translated"),
    "queue-full": (429, "Queue full"),
    "server-error": (500, "Server error"),
    "task-unreadable": (500, "Task unreadable"),
    "overloaded": (503, "Server overloaded"),
    "timeout": (503, "Translation timed out"),
    "not-ready": (503, "Server not ready"),
}
"""Name of a kind of problems -> its HTTP status and title."""


class Problem(Exception):
    """An error response.

    Attributes:
        name: one of `KINDS`.
        detail: what was wrong and what to do, for a person. Contains no path of the server.
        retry_after: seconds after which a client may try again.
        status, title: of the kind.
        more: further members of the document.
    """

    def __init__(
        self, name: str, detail: str, *, retry_after: int | None = None, **more: object
    ) -> None:
        super().__init__(detail)
        self.name = name
        self.detail = detail
        self.retry_after = retry_after
        self.more = more
        self.status, self.title = KINDS[name]

    @property
    def document(self) -> dict[str, Any]:
        """The members of the problem document."""
        return {
            "type": _PREFIX + self.name,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.more,
        }

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to the problem."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.name == "unauthorized":
            headers["WWW-Authenticate"] = 'Bearer realm="pbgan"'
        return headers

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """Return the document as a response, with further headers."""
        all_headers = {"Cache-Control": "no-store", **self.headers, **(headers or {})}
        return Response(self.render(), self.status, all_headers, MEDIA_TYPE)

    def render(self) -> bytes:
        """Return the document as JSON."""
        return json.dumps(self.document, ensure_ascii=False).encode(errors="replace")
