"""Names of benchmarks: one id each, the file name in evals/benchmarks, and what papers call it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from results.strict import Node, nearest, read_yaml, unique


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, or the plain mean of several (`of`).

    n: questions of the split that papers report, None where unknown. subsets: parts with their
    own n that are reported under the same name. access: why its data is not simply at hand.
    """

    id: str
    name: str
    n: int | None
    aliases: tuple[str, ...] = ()
    subsets: Mapping[str, int] = field(default_factory=dict)
    access: str | None = None
    of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmarks:
    """Every known benchmark by id, and every spelling in lower case -> id."""

    by_id: Mapping[str, Benchmark]
    spellings: Mapping[str, str]

    def find(self, name: Node) -> Benchmark:
        """The benchmark of that id or alias, in any case; otherwise names the nearest id."""
        text = name.text()
        if text.lower() not in self.spellings:
            raise name.fail(f"unknown benchmark {text!r}{nearest(text, list(self.by_id))}")
        return self.by_id[self.spellings[text.lower()]]


@cache
def load_benchmarks(path: Path | None = None) -> Benchmarks:
    """benchmarks.yaml, strictly. Raises ReportedError, also for a spelling with two owners."""
    top = read_yaml(path or Path(__file__).with_name("benchmarks.yaml"))
    parts = top.mapping(("benchmarks", "means"))
    known = {key: _single(key, node) for key, node in parts["benchmarks"].pairs().items()}
    means = {key: _mean(key, node, known) for key, node in parts["means"].pairs().items()}
    spellings: dict[str, str] = {}
    for benchmark in [*known.values(), *means.values()]:
        for spelling in (benchmark.id, benchmark.name, *benchmark.aliases):
            unique(spellings, spelling.lower(), benchmark.id, top)
            spellings[spelling.lower()] = benchmark.id
    return Benchmarks({**known, **means}, spellings)


def _single(key: str, node: Node) -> Benchmark:
    given = node.mapping(("name", "n", "aliases"), ("subsets", "access"))
    subsets = given["subsets"].pairs() if "subsets" in given else {}
    return Benchmark(
        id=key,
        name=given["name"].text(),
        n=None if given["n"].raw is None else given["n"].count(),
        aliases=given["aliases"].texts(),
        subsets={name: part.count() for name, part in subsets.items()},
        access=given["access"].text() if "access" in given else None,
    )


def _mean(key: str, node: Node, known: Mapping[str, Benchmark]) -> Benchmark:
    given = node.mapping(("name", "of"))
    parts = given["of"].texts()
    for part in parts:
        if part not in known:
            raise given["of"].fail(f"unknown benchmark {part!r}{nearest(part, list(known))}")
    return Benchmark(id=key, name=given["name"].text(), n=None, of=parts)
