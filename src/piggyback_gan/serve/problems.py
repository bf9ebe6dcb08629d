"""Errors as problem documents of RFC 9457 (Problem Details for HTTP APIs)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MEDIA_TYPE = "application/problem+json"
_PREFIX = "urn:pbgan:problem:"


@dataclass(frozen=True)
class Kind:
    """Status and title shared by all problems of a kind."""

    status: int
    title: str


KINDS: Mapping[str, Kind] = {
    "bad-request": Kind(400, "Malformed request"),
    "unauthorized": Kind(401, "Token required"),
    "cross-origin": Kind(403, "Cross-origin request"),
    "not-found": Kind(404, "Address not found"),
    "unknown-task": Kind(404, "Task not found"),
    "no-sample": Kind(404, "No sample picture"),
    "method-not-allowed": Kind(405, "Method not allowed"),
    "slow-upload": Kind(408, "Upload too slow"),
    "too-large": Kind(413, "Body too large"),
    "too-many-pixels": Kind(413, "Image too large"),
    "too-many-files": Kind(413, "Too many files"),
    "wrong-host": Kind(421, "Host name not allowed"),
    "not-an-image": Kind(422, "Not a readable image"),
    "wrong-image": Kind(422, "Image does not fit the task"),
    "invalid-request": Kind(422, "Invalid request"),
    "none-translated": Kind(422, "No file could be translated"),
    "queue-full": Kind(429, "Queue full"),
    "server-error": Kind(500, "Server error"),
    "task-unreadable": Kind(500, "Task unreadable"),
    "overloaded": Kind(503, "Server overloaded"),
    "timeout": Kind(503, "Translation timed out"),
    "not-ready": Kind(503, "Server not ready"),
}


class Problem(Exception):
    """An error response.

    Attributes:
        name: one of `KINDS`.
        detail: what was wrong and what to do, for a person. Contains no path of the server.
        retry_after: seconds after which a client may try again.
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

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.name].status

    @property
    def document(self) -> dict[str, Any]:
        """The members of the problem document."""
        return {
            "type": _PREFIX + self.name,
            "title": KINDS[self.name].title,
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

    def render(self) -> bytes:
        """Return the document as JSON."""
        return json.dumps(self.document, ensure_ascii=False).encode(errors="replace")
