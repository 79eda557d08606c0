"""A teacher behind any server that speaks OpenAI's chat completions: `openai:MODEL@URL[?k=v&...]`.

| option             | meaning                                                                   |
|--------------------|---------------------------------------------------------------------------|
| `gold=1`           | whether the teacher is told the gold answer (paper; 0: its ablation)      |
| `options=1`        | whether it is told the options (the release does not: D16)                |
| `tools=0`          | tools it may call on the original video, `rounds=3` times: 1 for all, or  |
|                    | their names with commas between                                           |
| `guided=1`         | ask the server for the schema (`response_format`); 0 where it cannot      |
| `temperature=0.1`  | as released; `tokens=2000` likewise                                       |
| `patience=120`     | seconds for one request; the service has a limit of its own               |

URL ends where `/chat/completions` follows. The key, where the server wants one, comes from
`$REPRO_TEACHER_KEY`; it goes to that address only, redirects are not followed, and no reply of a
failing server is repeated. What the student wrote stands in a JSON string without tags.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from evals.errors import BadInput
from evals.types import VideoClip
from evals.video import read_clip
from repro.ffr import tools as toolbox
from repro.ffr.patch import SCHEMA, BadPatch, Patch, parse
from repro.ffr.pictures import jpeg
from repro.ffr.teacher import Busy, Down, Failure, Invalid, Late, Read, Refused, spend
from repro.ffr.tools import Budget, Picture, Tools

KEY = "REPRO_TEACHER_KEY"
#: Pixels of one of the student's frames (paper, App. D.3), and characters of the student's reply
#: that are shown, its end (chosen).
PIXELS, SHOWN = 128 * 28 * 28, 4000
#: Bytes of a reply that are read (chosen).
LARGEST = 2**20

_NAME = re.compile(
    r"(?P<model>[^?]+?)(?:\?(?P<early>[^@?]*))?@(?P<url>https?://[^?@]+)(?:\?(?P<late>.*))?"
)
_Message = dict[str, Any]


@dataclass(frozen=True)
class Asking:
    """The table's options."""

    gold: bool = True
    options: bool = True
    tools: tuple[str, ...] = ()
    rounds: int = 3
    guided: bool = True
    temperature: float = 0.1
    tokens: int = 2000
    patience: float = 120.0

    @classmethod
    def of(cls, query: str) -> Asking:
        """From `gold=0&tools=1`. Raises BadInput."""
        kinds: Mapping[str, Callable[[str], Any]] = {
            "gold": _switch, "options": _switch, "tools": _tools, "guided": _switch,
            "rounds": int, "tokens": int, "temperature": float, "patience": float,
        }  # fmt: skip
        found: dict[str, Any] = {}
        for key, value in parse_qsl(query, keep_blank_values=True):
            if key in found:
                raise BadInput(
                    f"openai teacher: option {key} is given twice; a recipe sets gold, options and "
                    "tools by its switches"
                )
            try:
                found[key] = kinds[key](value)
            except (KeyError, ValueError):
                raise BadInput(  # without the value, and without a name that may be one
                    f"openai teacher: {_named(key, kinds)}; see docs/teacher.md. A key comes from "
                    f"${KEY} and from nowhere else"
                ) from None
        asking = cls(**found)
        if not (0 <= asking.rounds <= 10 and 1 <= asking.tokens <= 32768 and asking.patience > 0):
            raise BadInput("openai teacher: rounds 0 to 10, tokens 1 to 32768, patience above 0")
        return asking


def _named(key: str, kinds: Mapping[str, object]) -> str:
    if key in kinds:
        return f"the value of option {key} cannot be used"
    name = f"option {key}" if re.fullmatch("[a-z][a-z_-]{0,15}", key) else "one option"
    return f"{name} is not among {', '.join(kinds)}"


def _switch(value: str) -> bool:
    return {"0": False, "1": True}[value]


def _tools(value: str) -> tuple[str, ...]:
    if value in ("0", "1"):
        return toolbox.TOOLS if value == "1" else ()
    names = tuple(value.split(","))
    if set(names) - set(toolbox.TOOLS):
        raise ValueError(value)
    return names


@cache
def prompts() -> Mapping[str, str]:
    """Texts of prompts.yaml by name."""
    return yaml.safe_load(_FILE.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


_FILE = Path(__file__).parent / "prompts.yaml"


def version() -> str:
    """First 8 hex digits of the sha256 of the prompts, the schema and the tool protocol."""
    parts = [_FILE.read_text(encoding="utf-8"), json.dumps(SCHEMA), str(toolbox.VERSION)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def filled(name: str, **values: object) -> str:
    """A prompt with its markers filled, each once; other braces stay."""
    text = prompts()[name]
    for key, value in values.items():
        before, marker, after = text.partition(f"{{{key}}}")
        assert marker, f"prompts.yaml: {name} has no {{{key}}}"
        text = before + str(value) + after
    return text


class OpenAITeacher:
    """See the module's table. read: how the tools read videos (evals.decoding in a service)."""

    second_try, stores = False, True

    def __init__(
        self, model: str, url: str, asking: Asking | None = None, *,
        read: Read = read_clip, budget: Budget | None = None,
    ):  # fmt: skip
        self.model, self.url, self.asking = model, url.rstrip("/"), asking or Asking()
        self.budget, self._read = budget or Budget(), read
        self._client: Any = None
        self.id = f"openai:{model}@{self.url}?{self._settings()}#{version()}"

    def _settings(self) -> str:
        a = self.asking
        on = [name for name in ("gold", "options", "guided") if getattr(a, name)]
        rounds = f"&tools={','.join(a.tools)}&rounds={a.rounds}" if a.tools else ""
        return f"{'+'.join(on)}&temperature={a.temperature:g}&tokens={a.tokens}{rounds}"

    @classmethod
    def named(cls, text: str, read: Read = read_clip) -> OpenAITeacher:
        """From `MODEL@URL?options` or `MODEL?options@URL`. Raises BadInput; an address must not
        carry a password."""
        if "@" in text.partition("://")[2].partition("/")[0]:
            raise BadInput(f"an address must not carry a user or a password: use ${KEY}")
        parts = _NAME.fullmatch(text)
        if parts is None or not urlsplit(parts["url"]).hostname:
            raise BadInput(
                "openai:MODEL@URL is needed, as in openai:my-model@http://localhost:8000/v1"
            )
        query = "&".join(q for q in (parts["early"], parts["late"]) if q)
        return cls(parts["model"], parts["url"], Asking.of(query), read=read)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def patch(self, failure: Failure) -> Patch | None:
        """Raises Down, Late, Invalid and Refused; never returns text that is no patch."""
        messages = await asyncio.to_thread(self._opening, failure)
        reply = await self._talk(messages, failure)
        clip = failure.clip
        try:
            return parse(reply, len(clip.indices) if clip else None)
        except BadPatch as error:
            raise Invalid(error.reason) from error

    # --- the conversation ------------------------------------------------------------------------

    async def _talk(self, messages: list[_Message], failure: Failure) -> str:
        """The last reply, after as many rounds of tool calls as are allowed."""
        tools = self._tools(failure)
        for turn in range(self.asking.rounds if tools else 0):
            reply = await self._ask(messages, failure.seed + turn, guided=False)
            asked = toolbox.calls(reply)[: self.budget.calls + 1]  # one more is told why not
            if tools is None or not asked:
                return reply
            messages.append({"role": "assistant", "content": reply})
            given = await asyncio.to_thread(_answers, tools, asked)
            spend(tool_calls=len(asked))
            done = tools.spent or turn + 1 == self.asking.rounds
            messages.append(
                {"role": "user", "content": given + ([_text(prompts()["done"])] if done else [])}
            )
            if done:
                break
        return await self._ask(messages, failure.seed, guided=self.asking.guided)

    def _tools(self, failure: Failure) -> Tools | None:
        clip = failure.clip
        if not self.asking.tools or clip is None or not clip.indices:
            return None
        if failure.record.media is None:
            return None
        return Tools(failure, self._read, self.budget, self.asking.tools)

    def _opening(self, failure: Failure) -> list[_Message]:
        clip = failure.clip
        frames = len(clip.indices) if clip else 0
        told = [prompts()["role"], prompts()["never"], filled("form", last=max(frames - 1, 0))]
        if clip is not None and self._tools(failure) is not None:
            told.append(
                filled(
                    "tools", total=clip.total - 1, fps=f"{clip.fps:g}", calls=self.budget.calls,
                    frames=self.budget.frames,
                    which="\n".join(f"TOOL_CALL: {toolbox.form(t)}" for t in self.asking.tools),
                )
            )  # fmt: skip
        content = _shown(clip) if clip else []
        content.append(_text(filled("data", data=self._data(failure))))
        if failure.rejected:
            content.append(_text(filled("again", why=failure.rejected)))
        return [
            {"role": "system", "content": "\n".join(told)},
            {"role": "user", "content": content},
        ]

    def _data(self, failure: Failure) -> str:
        """Question and reply as JSON in which no tag can close or open anything."""
        record = failure.record
        data: dict[str, Any] = {"question": record.question, "kind_of_answer": record.kind}
        if self.asking.options and record.options:
            data["options"] = list(record.options)
        if self.asking.gold:
            data["true_answer_keep_it_secret"] = record.gold
        data["student_reply"] = failure.reply[-SHOWN:]
        data["student_answer"] = failure.answer
        data["student_score"] = failure.score
        return neutral(json.dumps(data))

    # --- one request -----------------------------------------------------------------------------

    async def _ask(self, messages: list[_Message], seed: int, *, guided: bool) -> str:
        body: dict[str, Any] = {
            "model": self.model, "messages": messages, "max_tokens": self.asking.tokens,
            "temperature": self.asking.temperature, "seed": seed % 2**31,
        }  # fmt: skip
        if guided:
            schema = {"name": "patch", "schema": SCHEMA, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        spend(calls=1)
        return said(await self._post(body))

    async def _post(self, body: dict[str, Any]) -> bytes:
        import httpx

        if self._client is None:
            self._client = httpx.AsyncClient(
                follow_redirects=False, timeout=httpx.Timeout(self.asking.patience, connect=10)
            )
        with reaching(self.url, f"within {self.asking.patience:g} s"):
            async with self._client.stream(
                "POST", f"{self.url}/chat/completions", json=body, headers=_headers()
            ) as response:
                if response.status_code != 200:
                    raise _refusal(response)
                return await bounded(response)


def _headers() -> dict[str, str]:
    headers = {"Accept-Encoding": "identity"}
    if key := os.environ.get(KEY):
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise BadInput(f"${KEY} holds characters that no key has")
        headers["Authorization"] = f"Bearer {key}"
    return headers


def _refusal(response: Any) -> Down:
    """A status other than 200 as a fault; what the server says is not repeated."""
    code = int(response.status_code)
    if 300 <= code < 400:
        return Down(f"the server redirects ({code}), which is not followed: name its address")
    if code in (401, 403):
        return Down(f"the server answered {code}: see to ${KEY}")
    asked = response.headers.get("retry-after", "")
    wait = float(asked) if asked.isascii() and asked.isdigit() and len(asked) < 6 else 0.0
    if code == 429:
        return Busy(f"the server answered {code}: too many requests at once", wait=wait)
    retryable = code in (408, 409, 425) or code >= 500
    hint = "; one that cannot keep to a schema wants guided=0" if code in (400, 422) else ""
    return Down(f"the server answered {code}{hint}", retryable=retryable, wait=wait)


@contextmanager
def reaching(url: str, when: str) -> Iterator[None]:
    """A request's own troubles as a teacher's: Late where no reply came `when`, else Down. Their
    texts are dropped, since they may repeat what was sent."""
    import httpx

    try:
        yield
    except httpx.TimeoutException:
        raise Late(f"{url} gave no reply {when}") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Down(f"{url} cannot be reached ({type(error).__name__})", retryable=True) from None


async def bounded(response: Any, largest: int = LARGEST) -> bytes:
    """The body of a reply, uncompressed and of at most `largest` bytes. Raises Down, Invalid."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Down("the server compresses its replies though it was told not to")
    data = bytearray()
    async for block in response.aiter_raw():
        data += block
        if len(data) > largest:
            raise Invalid(f"the reply has more than {largest} bytes")
    return bytes(data)


def said(data: bytes) -> str:
    """The text of a chat completion. Raises Invalid, Refused."""
    try:
        reply = json.loads(data.decode("utf-8"))
        choice = reply["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text = message.get("content")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise Invalid("the server does not speak OpenAI's chat format") from error
    usage = reply.get("usage")
    for name in ("prompt_tokens", "completion_tokens") if isinstance(usage, dict) else ():
        if isinstance(usage.get(name), int):
            spend(**{name: usage[name]})
    if message.get("refusal") or reason == "content_filter":
        raise Refused("the teacher refused")
    if reason == "length":
        raise Invalid("the reply was cut short by its limit of tokens")
    if not isinstance(text, str) or not text.strip():
        raise Invalid("the reply is empty")
    return text


def neutral(text: str) -> str:
    """JSON in which no character can open or close a tag; it reads the same."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("|", "\\u007c")


def _text(text: str) -> _Message:
    return {"type": "text", "text": text}


def _image(data: bytes) -> _Message:
    url = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _shown(clip: VideoClip) -> list[_Message]:
    """Every frame of the student with its number and time, in words and printed below it; then the
    question's own pictures."""
    content = []
    for number, (frame, seconds) in enumerate(zip(clip.frames, clip.seconds, strict=True)):
        label = f"frame {number}, t={seconds:.2f} s"
        content += [_text(label), _image(jpeg(frame, label, PIXELS))]
    for number, picture in enumerate(clip.images):
        label = f"picture {number} of the question"
        content += [_text(label), _image(jpeg(picture, label, PIXELS))]
    return content


def _answers(tools: Tools, asked: list[toolbox.Call]) -> list[_Message]:
    content = []
    for call in asked:
        found = tools.run(call)
        if isinstance(found, str):
            content.append(_text(found))
            continue
        content += [part for picture in found for part in _picture(picture)]
        spend(tool_frames=len(found))
    return content


def _picture(picture: Picture) -> list[_Message]:
    return [_text(picture.label), _image(picture.data)]
