"""An LLM that reads what no rule could read: off by default, versioned, cached, never shown a gold.

It only extracts. Given question, options and reply it must name one option, number or interval, or
NONE; whatever else it says is NONE too. Free text is not judged. Any server with OpenAI's
`/chat/completions` will do.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from evals.errors import BadInput, EnvironmentFault
from evals.extract import Answer, Unparsed, read
from evals.extract.answers import outside_think
from evals.types import Reply, Sample

#: Raised whenever the prompt or the reading of the verdict changes: old verdicts are not reused.
VERSION = 1
#: Characters of a reply that the judge is shown, the end of it (chosen).
_SHOWN = 4000
_ASKED = {
    "multiple choice": "the letter of the one option that the reply chooses",
    "numerical": "the one number that the reply gives as its answer",
    "regression": "the one number that the reply gives as its answer",
    "temporal grounding": "the one interval that the reply gives, as [start, end] in seconds",
    "ordering": "the numbers that the reply gives, in its order, with commas between them",
    "grounded qa": "the letter of the option that the reply chooses and the interval it gives, "
    "as in A [1.0, 2.5]",
}
KINDS = tuple(_ASKED)
_PROMPT = """\
Below are a question, its options if it has any, and a reply to it. Do not answer the question
yourself. Write {asked}. If the reply gives no such answer, or more than one, write NONE.
Write nothing else.

Question: {question}
{options}
Reply:
{reply}
"""


def prompt(sample: Sample, reply: str) -> str:
    """What the judge is told. The gold is no part of it."""
    spoken = outside_think(reply).strip() or reply.strip()
    fields = {
        "asked": _ASKED[sample.kind],
        "question": sample.question or "(not kept)",
        "options": "\n".join(sample.options),
        "reply": spoken[-_SHOWN:],
    }
    text = _PROMPT
    for name in fields:  # markers first, so that a reply with braces changes nothing
        text = text.replace(f"{{{name}}}", f"\0{name}\0")
    for name, value in fields.items():
        text = text.replace(f"\0{name}\0", value.replace("\0", " "))
    return text


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would send the key along, to whatever server it is told of."""

    def redirect_request(self, *_: object) -> None:
        """What comes of this is HTTPError with the redirect's code."""


_SERVER = urllib.request.build_opener(_Stay)


class Judge:
    """An OpenAI-compatible model. `url` ends before `/chat/completions`, as in `.../v1`.

    cache: a .jsonl file of verdicts, appended as they arrive. The key, if the server wants one,
    is read from the environment variable REPRO_JUDGE_KEY.
    """

    def __init__(self, url: str, model: str, cache: Path, *, timeout: float = 60.0, tries: int = 3):
        if not url.startswith(("http://", "https://")):
            raise BadInput(f"the judge's address must begin with http:// or https://, not {url!r}")
        if "@" in urlsplit(url).netloc:
            raise BadInput("the judge's address holds a password; its place is REPRO_JUDGE_KEY")
        self.url, self.model, self.cache = url.rstrip("/"), model, cache
        self.timeout, self.tries = timeout, tries
        self.asked = self.cached = 0
        self._lock = threading.Lock()
        self._verdicts = _load(cache)

    @property
    def id(self) -> str:
        """Model and version, for records."""
        return f"{self.model}@{VERSION}"

    def read(
        self, pairs: Sequence[tuple[Sample, Reply]], workers: int = 8
    ) -> list[Answer | Unparsed]:
        """Verdicts on replies that no rule could read, in their order.

        Raises EnvironmentFault when the server cannot be used; verdicts so far are kept.
        """
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(lambda pair: self._one(*pair), pairs))

    def _one(self, sample: Sample, reply: Reply) -> Answer | Unparsed:
        if sample.kind not in _ASKED:
            return Unparsed(f"{sample.kind} is not judged")
        said = self._verdict(prompt(sample, reply.text)).strip()
        if not said or said.upper().strip(".") == "NONE":
            return Unparsed(f"the judge {self.id} found no answer")
        answer = read(said, sample.kind, sample.options)
        if isinstance(answer, Unparsed):
            return Unparsed(f"the judge {self.id} said {said[:40]!r}: {answer.reason}")
        return replace(answer, rule=f"judge {self.id}", confidence="low")

    def _verdict(self, text: str) -> str:
        key = hashlib.sha256(json.dumps([VERSION, self.model, text]).encode()).hexdigest()
        with self._lock:
            if key in self._verdicts:
                self.cached += 1
                return self._verdicts[key]
        said = self._ask(text)
        with self._lock:
            self.asked += 1
            self._verdicts[key] = said
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            with self.cache.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "judge": self.id, "said": said}) + "\n")
        return said

    def _ask(self, text: str) -> str:
        body = {
            "model": self.model, "messages": [{"role": "user", "content": text}],
            "temperature": 0, "max_tokens": 32, "seed": 0,
        }  # fmt: skip
        headers = {"Content-Type": "application/json"}
        if secret := os.environ.get("REPRO_JUDGE_KEY"):
            headers["Authorization"] = f"Bearer {secret}"
        request = urllib.request.Request(
            f"{self.url}/chat/completions", json.dumps(body).encode(), headers
        )
        last = ""
        for _ in range(self.tries):
            try:
                with _SERVER.open(request, timeout=self.timeout) as answer:
                    return _content(answer.read())
            except urllib.error.HTTPError as error:
                last = f"{error.code} {http.client.responses.get(error.code, '')}".strip()
                if 300 <= error.code < 400:
                    last += ", another address: give that one if you trust it with the key"
                if error.code not in (408, 429) and error.code < 500:
                    break
            except (OSError, http.client.BadStatusLine, http.client.IncompleteRead) as error:
                last = str(error)
        raise EnvironmentFault(
            f"the judge at {self.url} does not answer ({last}): start it, or leave out --judge; "
            "verdicts so far are kept"
        )


def _content(data: bytes) -> str:
    try:
        said: Any = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise EnvironmentFault("the judge's server does not speak OpenAI's chat format") from error
    return said if isinstance(said, str) else ""


def _load(path: Path) -> dict[str, str]:
    """Verdicts of a cache file; a last line that a kill cut short is left out."""
    if not path.exists():
        return {}
    found = {}
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            found[row["key"]] = row["said"]
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # no newline after it
                path.write_text("".join(f"{kept}\n" for kept in lines[:-1]), encoding="utf-8")
                break
            raise BadInput(f"{path}, line {number}: no verdict; delete the file") from error
    return found
