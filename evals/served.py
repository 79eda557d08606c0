"""A model behind any server that speaks OpenAI's chat completions: `openai:MODEL@URL[?k=v&...]`.

| option                | meaning                                                                |
|-----------------------|------------------------------------------------------------------------|
| `show=frames`         | the clip as one PNG picture per frame (default; every server takes it) |
| `show=video`          | the clip as one mp4 of exactly its frames, lossless, at their own rate |
| `parallel=8`          | requests in flight                                                     |
| `patience=600`        | seconds to wait for one reply                                          |

URL ends where `/chat/completions` follows, for example http://localhost:8000/v1. The key, where
the server wants one, is read from `$OPENAI_API_KEY`. The server resizes pictures, tells time and
counts positions by rules of its own, so the protocol is recorded as `<id>+served-frames` or
`-video` and compares with nothing else. A server that fails stops the run; nothing is dropped.
"""

from __future__ import annotations

import base64
import io
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl

from evals.errors import BadInput, EnvironmentFault
from evals.models import Question
from evals.prompts import between_pictures
from evals.types import Decoding, Protocol, Reply, VideoClip

Show = Literal["frames", "video"]
TRIES = 3  # requests per reply before the server counts as failing (chosen)


@dataclass(frozen=True)
class Served:
    """See the module's table. `name` is the model's on the server."""

    name: str
    url: str
    show: Show = "frames"
    parallel: int = 8
    patience: float = 600.0

    sees, at_once = True, 64
    identity: Mapping[str, str] | None = None  # nobody can tell what a server runs

    @classmethod
    def named(cls, text: str) -> Served:
        """From `MODEL@URL?options`. Raises BadInput."""
        address, _, query = text.partition("?")
        name, _, url = address.rpartition("@")
        if not name or not url.startswith(("http://", "https://")):
            raise BadInput(
                f"openai:{text} is not openai:MODEL@URL, as in "
                "openai:my-model@http://localhost:8000/v1"
            )
        options: dict[str, Any] = {}
        for key, value in parse_qsl(query, keep_blank_values=True):
            if key == "show" and value in get_args(Show):
                options["show"] = value
            elif key in ("parallel", "patience") and value.isdigit() and int(value) > 0:
                options[key] = int(value)
            else:
                raise BadInput(
                    f"openai: option {key}={value}; known: show=frames or video, parallel=N, "
                    "patience=S"
                )
        return cls(name, url.rstrip("/"), **options)

    def under(self, protocol: Protocol) -> Protocol:
        """A server writes its answer from the beginning, so that a prefix cannot be given."""
        return replace(protocol, id=f"{protocol.id}+served-{self.show}", prefix="")

    def prompt(self, question: Question, protocol: Protocol) -> str:
        return question.turn(protocol).words

    def answer(
        self, questions: Sequence[Question], protocol: Protocol, decoding: Decoding
    ) -> list[list[Reply]]:
        asked = [
            (self._messages(q, protocol), (q.own_seed + k) % 2**31)
            for q in questions
            for k in range(decoding.samples)
        ]
        with ThreadPoolExecutor(self.parallel) as threads:
            try:
                flat = list(threads.map(lambda one: self._ask(one[0], one[1], decoding), asked))
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise
        n = decoding.samples
        return [flat[first : first + n] for first in range(0, len(flat), n)]

    def _messages(self, question: Question, protocol: Protocol) -> list[dict[str, Any]]:
        turn = question.turn(protocol)
        images = () if question.clip is None else question.clip.images
        content = [*_said(turn.before), *_shown(question.clip, self.show)]
        for number, part in enumerate(between_pictures(turn.text, len(images))):
            content += [_picture(images[number - 1])] if number else []
            content += _said(part)
        told = [] if turn.system is None else [{"role": "system", "content": turn.system}]
        return [*told, {"role": "user", "content": content}]

    def _ask(self, messages: list[dict[str, Any]], seed: int, decoding: Decoding) -> Reply:
        body = {
            "model": self.name,
            "messages": messages,
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "seed": seed,
        }
        if decoding.top_k:
            body["top_k"] = decoding.top_k
        said = self._post(body)
        try:
            choice = said["choices"][0]
            message = choice["message"]
            text = message.get("content") or ""
            # Some servers cut the reasoning out of the reply; graders read the whole.
            thought = message.get("reasoning_content") or message.get("reasoning")
            text = f"<think>{thought}</think>{text}" if thought else text
            tokens = int(said["usage"]["completion_tokens"])
            return Reply(text, tokens, choice["finish_reason"] != "length")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise EnvironmentFault(
                f"{self.url} answered without {error}: not OpenAI's chat completions"
            ) from error

    def _post(self, body: dict[str, Any]) -> Any:
        """The reply's JSON; busy servers and broken connections are tried again."""
        import httpx

        key = os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        why = ""
        for attempt in range(TRIES):
            time.sleep(2.0**attempt - 1)  # 0, 1, 3 s
            try:
                response = httpx.post(
                    f"{self.url}/chat/completions", json=body, headers=headers,
                    timeout=httpx.Timeout(self.patience, connect=10),
                )  # fmt: skip
            except httpx.TransportError as error:
                late = isinstance(error, httpx.TimeoutException)
                why = f"gave no reply within {self.patience:g} s" if late else (
                    f"cannot be reached ({error})"
                )  # fmt: skip
                continue
            if response.status_code == 200:
                return _json(response, self.url)
            said = response.text.replace(key, "...") if key else response.text  # some repeat it
            why = f"answered {response.status_code}: {' '.join(said.split())[:200]}"
            if response.status_code < 500 and response.status_code not in (408, 429):
                raise BadInput(f"{self.url} {why}")
        raise EnvironmentFault(f"{self.url} {why} (tried {TRIES} times); see to the server")


def _json(response: Any, url: str) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise EnvironmentFault(f"{url} answered with something else than JSON") from error


def _shown(clip: VideoClip | None, show: Show) -> list[dict[str, Any]]:
    if clip is None:
        return []
    if clip.modality == "image" or show == "frames":
        return [_picture(frame) for frame in clip.frames]
    url = f"data:video/mp4;base64,{_base64(as_mp4(clip))}"
    return [{"type": "video_url", "video_url": {"url": url}}]


def _said(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text else []


def _picture(frame: Any) -> dict[str, Any]:
    url = f"data:image/png;base64,{_base64(_png(frame))}"
    return {"type": "image_url", "image_url": {"url": url}}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _png(frame: Any) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(frame).save(out, "PNG", compress_level=1)
    return out.getvalue()


def as_mp4(clip: VideoClip) -> bytes:
    """The clip's frames as lossless H.264 in RGB, at the rate they were sampled with."""
    from fractions import Fraction

    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        rate = Fraction(clip.sampled_fps).limit_denominator(1000)
        stream = container.add_stream("libx264rgb", rate=max(rate, Fraction(1, 1000)))
        stream.height, stream.width = clip.frames.shape[1:3]
        stream.pix_fmt, stream.options = "rgb24", {"qp": "0", "preset": "ultrafast"}
        for array in clip.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()
