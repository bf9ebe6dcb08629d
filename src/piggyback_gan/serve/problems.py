"""What can be wrong with a request, as documents of RFC 9457 (Problem Details for HTTP APIs)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MEDIA_TYPE = "application/problem+json"
_PREFIX = "urn:pbgan:problem:"


@dataclass(frozen=True)
class Kind:
    """A kind of problem: what its documents have in common."""

    status: int
    title: str


KINDS: Mapping[str, Kind] = {
    "bad-request": Kind(400, "The request can't be read"),
    "unauthorized": Kind(401, "A token is needed"),
    "cross-origin": Kind(403, "Another site's page asked"),
    "not-found": Kind(404, "There is no such address"),
    "unknown-task": Kind(404, "There is no such task"),
    "no-sample": Kind(404, "The task has no sample picture"),
    "method-not-allowed": Kind(405, "The address does not know this method"),
    "slow-upload": Kind(408, "The body took too long to arrive"),
    "too-large": Kind(413, "The body is too large"),
    "too-many-pixels": Kind(413, "The image has too many pixels"),
    "too-many-files": Kind(413, "There are too many files"),
    "wrong-host": Kind(421, "The server is not called so"),
    "not-an-image": Kind(422, "This is no image that can be read"),
    "wrong-image": Kind(422, "The image is not what the task takes"),
    "invalid-request": Kind(422, "The request has a value that is not allowed"),
    "none-translated": Kind(422, "No file could be translated"),
    "queue-full": Kind(429, "Too many images are waiting"),
    "server-error": Kind(500, "The server failed"),
    "task-unreadable": Kind(500, "The task can't be read"),
    "overloaded": Kind(503, "The server can't take more now"),
    "timeout": Kind(503, "The translation took too long"),
    "not-ready": Kind(503, "The server is not ready"),
}


class Problem(Exception):
    """An answer that is an error.

    Attributes:
        name: one of `KINDS`.
        detail: a sentence for a person: what was wrong, what to do. No path of the server is in it.
        retry_after: seconds after which it may be worth to try again.
        more: what else the document says.
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
        """Its HTTP status."""
        return KINDS[self.name].status

    @property
    def document(self) -> dict[str, Any]:
        """What RFC 9457 wants to be said."""
        return {
            "type": _PREFIX + self.name,
            "title": KINDS[self.name].title,
            "status": self.status,
            "detail": self.detail,
            **self.more,
        }

    @property
    def headers(self) -> dict[str, str]:
        """What goes with the document."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.name == "unauthorized":
            headers["WWW-Authenticate"] = 'Bearer realm="pbgan"'
        return headers

    def render(self) -> bytes:
        """The document as JSON."""
        return json.dumps(self.document, ensure_ascii=False).encode(errors="replace")
