"""Asks a `repro teacher serve` elsewhere: `remote:URL`, as in remote:http://127.0.0.1:8765.

The server has the records and the videos: only the record's id, the question, the numbers of the
frames shown and the student's words travel, neither gold nor pixels. The shared secret comes from
`$REPRO_TEACHER_TOKEN`. Whoever asks has a gate of its own; the server's comes before it.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlsplit

from evals.errors import BadInput
from repro.ffr.openai_teacher import bounded, reaching
from repro.ffr.patch import BadPatch, Patch, from_dict
from repro.ffr.teacher import Busy, Down, Ended, Failure, Invalid, spend

TOKEN = "REPRO_TEACHER_TOKEN"
PATH = "/v1/repair:batch"
#: Seconds for which the server may think, and longer that a reply is waited for (chosen).
PATIENCE, SLACK = 120.0, 30.0


def token() -> str:
    """The shared secret. Raises BadInput where it is missing, short or no text for a header."""
    secret = os.environ.get(TOKEN, "")
    if len(secret) < 16 or not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise BadInput(
            f"${TOKEN} must hold a secret of 16 characters or more, the same for server and "
            f'trainer: export {TOKEN}="$(openssl rand -hex 24)"'
        )
    return secret


class Remote:
    """A teacher behind `repro teacher serve`; what it finds is final, so nothing is asked twice."""

    second_try, stores = False, False

    def __init__(self, url: str, patience: float = PATIENCE):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise BadInput("remote:URL is needed, as in remote:http://127.0.0.1:8765")
        self.url, self.patience = url.rstrip("/"), patience
        self.id = f"remote:{self.url}"
        self._client: Any = None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def patch(self, failure: Failure) -> Patch | None:
        """Raises Ended with the server's own status, or Down, Late, Invalid."""
        reply = await self._post(json.dumps({"items": [item(failure)], "wait": self.patience}))
        status, data, usage = _read(reply)
        spend(**usage)
        if status in ("ok", "cached"):
            clip = failure.clip
            try:
                return from_dict(data, len(clip.indices) if clip else None)
            except BadPatch as error:
                raise Ended("invalid") from error
        if status in ("backend_error", "circuit_open"):
            raise Down("the server's teacher does not answer")
        raise Ended(status)  # type: ignore[arg-type]

    async def _post(self, body: str) -> bytes:
        import httpx

        if self._client is None:
            self._client = httpx.AsyncClient(
                follow_redirects=False,
                timeout=httpx.Timeout(self.patience + SLACK, connect=10),
            )
        headers = {
            "Authorization": f"Bearer {token()}", "Content-Type": "application/json",
            "Accept-Encoding": "identity",
        }  # fmt: skip
        with reaching(self.url, "in time"):
            async with self._client.stream(
                "POST", self.url + PATH, content=body.encode(), headers=headers
            ) as response:
                if response.status_code != 200:
                    code = response.status_code
                    if code == 429:  # of something between here and there
                        raise Busy(f"{self.url} answered {code}: too many requests at once")
                    raise Down(
                        f"{self.url} answered {code}: see to ${TOKEN} and to the server's records",
                        retryable=code >= 500,
                    )
                return await bounded(response)


def item(failure: Failure) -> dict[str, Any]:
    """What travels of a failure."""
    record, clip = failure.record, failure.clip
    return {
        "id": "0", "record_id": record.id, "question": record.question,
        "options": list(record.options), "frames": list(clip.indices) if clip else [],
        "student_reply": failure.reply, "student_answer": failure.answer,
        "score": failure.score, "seed": failure.seed, "rejected": failure.rejected,
    }  # fmt: skip


_STATUSES = (
    "ok", "cached", "retry", "none", "timeout", "backend_error", "invalid", "leak_rejected",
    "refused", "circuit_open",
)  # fmt: skip


def _read(reply: bytes) -> tuple[str, Any, dict[str, int]]:
    """Status, patch and usage of the only item. Raises Invalid."""
    try:
        (found,) = json.loads(reply.decode("utf-8"))["items"]
        status, patch, usage = found["status"], found["patch"], found["usage"]
        counts = {str(k): int(v) for k, v in usage.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Invalid("the server's reply is none of ours") from error
    if status not in _STATUSES:
        raise Invalid("the server's reply has a status that is none of ours")
    return status, patch, counts
