"""A teacher over HTTP for a trainer elsewhere: `POST /v1/repair:batch`, `GET /health`.

    {"items": [{"id", "record_id", "question", "options", "frames", "student_reply",
                "student_answer", "score", "seed", "rejected"}], "wait": seconds}
    -> {"items": [{"id", "status", "patch", "usage", "latency_ms"}]}

It listens on the loopback and wants the token of `$REPRO_TEACHER_TOKEN`. Records are an allow-list:
a request names one by its id, and its video, gold and evidence are the server's own, under one
folder. Neither golds nor a teacher's reasoning are returned. All caps are chosen.
"""

from __future__ import annotations

import hmac
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

from evals.errors import BadInput, TimedOut, Undecodable
from evals.types import Sample, VideoClip
from evals.video import NOTHING, Exactly, Wanted
from repro.ffr.patch import as_dict
from repro.ffr.remote import PATH
from repro.ffr.service import Service
from repro.ffr.teacher import Failure, Read, Repair

#: Bytes of a request, items in it, frames of an item, characters of a student's reply, seconds
#: that a request may wait, seconds of silence on a connection.
LARGEST, ITEMS, FRAMES, LONGEST, WAIT, SILENCE = 4 * 2**20, 64, 64, 64_000, 600.0, 60
#: Bytes of the decoded frames of one item.
PIXELS = 2**29
_KEPT = 8  # clips in memory


class NotOurs(Exception):
    """A request that is refused, with its HTTP status."""

    def __init__(self, code: int, why: str):
        super().__init__(why)
        self.code = code


class Library:
    """The records that may be asked about. root: the folder that all their media lie under, links
    followed. Raises BadInput for a record that leads elsewhere."""

    def __init__(self, samples: Iterable[Sample], root: Path, read: Read):
        self._samples = {sample.id: sample for sample in samples}
        self._read, self._lock = read, Lock()
        self._clips: OrderedDict[tuple[Any, ...], VideoClip] = OrderedDict()
        home = root.resolve(strict=True)
        for sample in self._samples.values():
            for path in (sample.media, *sample.images):
                if path is not None and not path.resolve().is_relative_to(home):
                    raise BadInput(f"record {sample.id} leads out of {root}: {path}")
        self._home = home

    def failure(self, item: Mapping[str, Any]) -> Failure:
        """An item, of the server's own record. Raises NotOurs, Undecodable, TimedOut."""
        record = self._samples.get(_field(item, "record_id", str))
        if record is None:
            raise NotOurs(404, "no such record")
        asked = (_field(item, "question", str), _list(item, "options", str, 64))
        if asked != (record.question, list(record.options)):
            raise NotOurs(409, "the record asks something else here")
        answer = item.get("student_answer")
        return Failure(
            record, self._clip(record, tuple(_list(item, "frames", int, FRAMES))),
            _field(item, "student_reply", str)[-LONGEST:],
            str(answer)[:LONGEST] if isinstance(answer, str) else None,
            _number(item, "score"), abs(_field(item, "seed", int)) % 2**63,
            _REJECTED.get(_field(item, "rejected", str), ""),
        )  # fmt: skip

    def _clip(self, record: Sample, frames: tuple[int, ...]) -> VideoClip | None:
        files = [path for path in (record.media, *record.images) if path is not None]
        if record.modality == "text" or not files:
            return None
        if not all(path.resolve().is_relative_to(self._home) for path in files):
            raise NotOurs(403, "the record leads out of the folder")  # changed since the start
        key = (record.media, record.span, record.images, frames)
        with self._lock:
            if key in self._clips:
                return self._clips[key]
        film = NOTHING if record.media is None else self._read(Wanted.of(record), Exactly(frames))
        pictures = (self._read(Wanted(p, "image"), Exactly((0,))).frames[0] for p in record.images)
        clip = replace(film, images=tuple(pictures))
        with self._lock:
            self._clips[key] = clip
            while len(self._clips) > _KEPT:
                self._clips.popitem(last=False)
        return clip


#: The only words that a client may add to a prompt.
_REJECTED = {why: why for why in ("it gave the answer away", "it was no patch")}


def _field(item: Mapping[str, Any], name: str, kind: Any) -> Any:
    value = item.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise NotOurs(400, f"{name} is missing or of another type")
    return value


def _number(item: Mapping[str, Any], name: str) -> float:
    value = _field(item, name, (int, float))
    if not -1e9 <= value <= 1e9:  # neither infinite nor not a number
        raise NotOurs(400, f"{name} is out of range")
    return float(value)


def _list(item: Mapping[str, Any], name: str, kind: type, most: int) -> list[Any]:
    found = _field(item, name, list)
    if len(found) > most or any(not isinstance(f, kind) or isinstance(f, bool) for f in found):
        raise NotOurs(400, f"{name} is no list of at most {most} of its kind")
    return list(found)


class Desk:
    """Answers requests: reads them, asks the service, says what became of each item."""

    def __init__(self, service: Service, library: Library):
        self.service, self.library = service, library

    def health(self) -> dict[str, Any]:
        """Teacher, alarm and counts; no secrets."""
        return {
            "teacher": self.service.teacher.id, "alarm": self.service.alarm,
            "counts": dict(self.service.counts),
        }  # fmt: skip

    def repair(self, body: bytes) -> dict[str, Any]:
        """The reply to a batch. Raises NotOurs."""
        try:
            data = json.loads(body.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise NotOurs(400, "not JSON in UTF-8") from error
        if not isinstance(data, dict):
            raise NotOurs(400, "not a JSON object")
        items = _list(data, "items", dict, ITEMS)
        wait = min(max(0.0, _number(data, "wait")), WAIT)
        names = [_field(item, "id", str)[:200] for item in items]
        failures = [self._read(item) for item in items]
        pending = self.service.start([f for f in failures if f is not None])
        repairs = iter(pending.result(wait))
        found = [Repair("invalid") if f is None else next(repairs) for f in failures]
        return {"items": [_said(n, repair) for n, repair in zip(names, found, strict=True)]}

    def _read(self, item: Mapping[str, Any]) -> Failure | None:
        """None where the video cannot be shown as asked."""
        try:
            return self.library.failure(item)
        except (Undecodable, TimedOut):
            return None


def _said(name: str, repair: Repair) -> dict[str, Any]:
    return {
        "id": name, "status": repair.status,
        "patch": as_dict(repair.patch) if repair.patch else None, "usage": dict(repair.usage),
        "latency_ms": round(1000 * repair.seconds),
    }  # fmt: skip


def server(desk: Desk, port: int, secret: str) -> ThreadingHTTPServer:
    """A server on the loopback, not yet running; port 0 picks a free one."""

    class Handler(_Handler):
        pass

    Handler.desk, Handler.expected = desk, f"Bearer {secret}".encode()
    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


class _Handler(BaseHTTPRequestHandler):
    desk: Desk
    expected: bytes
    protocol_version = "HTTP/1.1"
    timeout = SILENCE
    server_version, sys_version = "reelproof", ""

    def do_GET(self) -> None:
        self._answer(self._health)

    def do_POST(self) -> None:
        self._answer(self._repair)

    def _health(self) -> dict[str, Any]:
        if self.path != "/health":
            raise NotOurs(404, "no such page")
        return self.desk.health()

    def _repair(self) -> dict[str, Any]:
        if self.path != PATH:
            raise NotOurs(404, "no such page")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise NotOurs(411, "a Content-Length is needed")
        if int(length) > LARGEST:
            raise NotOurs(413, f"more than {LARGEST} bytes")
        return self.desk.repair(self.rfile.read(int(length)))

    def _answer(self, how: Callable[[], dict[str, Any]]) -> None:
        try:
            given = self.headers.get("Authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, self.expected):
                raise NotOurs(401, "the token is missing or wrong")
            code, said = 200, how()
        except NotOurs as error:
            code, said = error.code, {"error": str(error)}
            self.close_connection = True  # what is unread of it stays unread
        except TimeoutError:
            self.close_connection = True
            return
        data = json.dumps(said).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Nothing: requests hold students' words."""
