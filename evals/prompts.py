"""The words around the clip: one template per prompt id, with the exact wording of its source.

| prompt                  | source                                                             |
|-------------------------|--------------------------------------------------------------------|
| `video-r1`              | evaluation of the Video-R1 family (ktr.md 4.1)                     |
| `video-r1-train`        | its training (ktr.md 3.6): "between the <think> </think> tags"     |
| `video-holmes-official` | Video-Holmes `evaluate.py` (ktr.md 4.4); multiple choice only      |
| `micro`                 | chosen, for the tiny student: question, then one option per line   |
| `micro-json`            | the same, asking for JSON                                          |
| `problem`               | the record's own text: training of Temporal-R1; then the options,  |
|                         | one a line (chosen), where the text does not hold them already     |
| `FILE/KEY`              | templates of evals/protocols/FILE.yaml, under `prompts`            |

A template is picked by the question's form and kind ("adaptation multiple choice", then
"adaptation", then "multiple choice", then "any"; with ` +subtitles` first where lines are shown).
Its placeholders are filled once, from left to right; all other braces stay.

| placeholder          | filled with                                                      |
|----------------------|------------------------------------------------------------------|
| question, caption    | the question; the sentence to be found in the video              |
| original             | the question as its record has it, options and all               |
| options, option_a .. | all options as the prompt prints them; the text of one           |
| subtitles            | lines of the video's subtitles                                   |
| duration, n_frames   | seconds of the video as its record has them; frames shown        |
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evals import archive, protocols
from evals.errors import BadInput
from evals.extract import option_texts
from evals.types import IMAGE, Protocol, Sample

_DELIBERATE = (
    "Please think about this question as if you were a human pondering deeply. "
    "Engage in an internal dialogue using expressions such as 'let me think', 'wait', 'Hmm', "
    "'oh, I see', 'let's break it down', etc, or other natural language thought expressions "
    "It's encouraged to include self-reflection or verification in the reasoning process. "
)
_TAGS = {
    "video-r1": (
        "Provide your detailed reasoning between the <think> and </think> tags, "
        "and then give your final answer between the <answer> and </answer> tags."
    ),
    "video-r1-train": (
        "Provide your detailed reasoning between the <think> </think> tags, "
        "and then give your final answer between the <answer> </answer> tags."
    ),
}
_NUMBER = (
    " Please provide the numerical value (e.g., 42 or 3.14) within the <answer> </answer> tags."
)
_SUFFIX = {
    "multiple choice": (
        " Please provide only the single option letter (e.g., A, B, C, D, etc.)"
        " within the <answer> </answer> tags."
    ),
    "numerical": _NUMBER,
    "regression": _NUMBER,
    "OCR": (
        " Please transcribe text from the image/video clearly and provide your text answer"
        " within the <answer> </answer> tags."
    ),
    "free-form": " Please provide your text answer within the <answer> </answer> tags.",
    # Chosen: the family has none of the following kinds.
    "temporal grounding": (
        " Please provide the start and end time in seconds as [start, end]"
        " within the <answer> </answer> tags."
    ),
    "grounded qa": (
        " Please provide the single option letter followed by the start and end time in seconds"
        " (e.g., A [1.0, 2.5]) within the <answer> </answer> tags."
    ),
    "ordering": (
        " Please provide the numbers in order, separated by commas (e.g., 2, 5, 1)"
        " within the <answer> </answer> tags."
    ),
}
_HOLMES = (
    "Based on the given video, reason and answer the single-choice question. "
    "Provide your reasoning between the <think> and </think> tags, "
    "and then give your final answer between the <answer> and </answer> tags. "
    "The question is: {question}. The options are: {options}. Your answer:"
)
_CHOICE = ("multiple choice", "grounded qa")


@dataclass(frozen=True)
class Turn:
    """What a model is told: system turn (None: the chat template's own), text before the clip,
    text after it, and the beginning of the answer.
    """

    system: str | None
    before: str
    text: str
    prefix: str = ""

    @property
    def words(self) -> str:
        """All of it as one text: the text itself where there is no more."""
        plain = self.system is None and not self.before and not self.prefix
        return self.text if plain else json.dumps(asdict(self), ensure_ascii=False)


def between_pictures(text: str, pictures: int) -> list[str]:
    """The words before, between and after the pictures; the marks are words where there are none.

    Raises BadInput unless there is a mark for each.
    """
    if not pictures:
        return [text]
    parts = text.split(IMAGE)
    if len(parts) != pictures + 1:
        raise BadInput(f"{pictures} pictures for {len(parts) - 1} {IMAGE} in {text[:80]!r}")
    return parts


def render(sample: Sample, protocol: Protocol, seconds: Sequence[float] = ()) -> Turn:
    """The words of a question under a protocol; `seconds` of the frames that are shown.

    Raises BadInput as `question_text` does.
    """
    lines = _subtitles(sample, protocol.subtitles, seconds)
    text = question_text(sample, protocol.prompt, lines=lines, frames=len(seconds))
    before = _fill(protocol.before, {"n_frames": str(len(seconds))})
    if (protocols.wording(protocol.prompt) or {}).get("place") == "before":
        before, text = before + text, ""
    return Turn(protocol.system, before, text, protocol.prefix)


def question_text(
    sample: Sample, prompt: str, *, lines: Sequence[str] = (), frames: int = 0
) -> str:
    """The text of a question under a prompt id, with these subtitle lines.

    Raises BadInput for an unknown id, for a choice question without options, and for a kind that
    the prompt's source does not have.
    """
    templates = protocols.wording(prompt)
    if prompt not in TEMPLATES and templates is None:
        raise BadInput(f"unknown prompt {prompt!r}; known: {', '.join(TEMPLATES)}, or FILE/KEY")
    if sample.kind in _CHOICE and not sample.options:
        raise BadInput(f"question {sample.id!r} is {sample.kind} but has no options")
    if templates is None:
        return TEMPLATES[prompt](sample)
    return _written(sample, prompt, templates, lines, frames)


def _written(
    sample: Sample, prompt: str, templates: Mapping[str, Any], lines: Sequence[str], frames: int
) -> str:
    texts = {key: text for keys, text in templates["texts"].items() for key in keys.split(", ")}
    wanted = [f"{sample.form} {sample.kind}", sample.form, sample.kind, "any"]
    if lines:
        wanted = [*(f"{key} +subtitles" for key in wanted), *wanted]
    key = next((key for key in wanted if key in texts), None)
    if key is None:
        raise BadInput(f"prompt {prompt!r} does not ask {sample.form} {sample.kind}".strip())
    if "{duration}" in texts[key] and not sample.facts.get("duration"):
        raise BadInput(f"prompt {prompt!r} says how long the video is, {sample.id} does not")
    options = option_texts(sample.options)
    values = {
        "question": sample.question,
        "caption": sample.facts.get("caption", sample.question),
        "original": sample.facts.get("original", sample.question),
        "options": _options(options, templates.get("options", {})),
        "subtitles": "\n".join(lines),
        "duration": sample.facts.get("duration", ""),
        "n_frames": str(frames),
        **{f"option_{label.lower()}": text for label, text in options.items()},
    }
    return _fill(texts[key], values)


_PLACE = re.compile(r"\{([a-z_]+)\}")


def _fill(template: str, values: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda match: values.get(match[1], match[0]), template)


def _options(texts: Mapping[str, str], style: Mapping[str, str] | str) -> str:
    """Options as printed: lines joined, or (`python`) VLMEvalKit's list with no apostrophes."""
    if isinstance(style, str):
        return str([f"{label}. {text.replace(chr(39), '')}" for label, text in texts.items()])
    line, join = style.get("line", "{label}. {text}"), style.get("join", "\n")
    return join.join(_fill(line, {"label": k, "text": text}) for k, text in texts.items())


# --- subtitles ---------------------------------------------------------------------------------

_CUE = re.compile(
    r"(\d+):(\d\d):(\d\d)[,.](\d+)\s*-->\s*(\d+):(\d\d):(\d\d)[,.](\d+)[^\n]*\n(.*?)(?=\n\s*\n|\Z)",
    re.DOTALL,
)
_MARKUP = re.compile(r"<[^>]+>")


def cues(srt: str) -> list[tuple[float, float, str]]:
    """(start, end, line) of an .srt file, seconds, in its order; markup removed."""
    found = []
    for match in _CUE.finditer(srt.replace("\r\n", "\n")):
        h0, m0, s0, f0, h1, m1, s1, f1, text = match.groups()
        start = 3600 * int(h0) + 60 * int(m0) + int(s0) + float(f"0.{f0}")
        end = 3600 * int(h1) + 60 * int(m1) + int(s1) + float(f"0.{f1}")
        line = " ".join(_MARKUP.sub("", text).split())
        if line:
            found.append((start, end, line))
    return found


def _subtitles(sample: Sample, which: str, seconds: Sequence[float]) -> list[str]:
    """Lines for the prompt: all, or those on screen at one of the shown frames, each once."""
    path = sample.facts.get("subtitles")
    if which == "none" or not path:
        return []
    try:
        found = cues(archive.read(Path(path)).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not a text file in UTF-8") from error
    if which == "sampled":
        found = [cue for cue in found if any(cue[0] <= t <= cue[1] for t in seconds)]
    return list(dict.fromkeys(line for _, _, line in found))


# --- prompts written in code -------------------------------------------------------------------


def _video_r1(sample: Sample, tags: str) -> str:
    """ktr.md 3.6: "Options:" follows the problem with nothing between, every option ends in a
    newline, so a blank line stands before the template.
    """
    question = sample.question
    if sample.kind in _CHOICE:
        question += "Options:\n" + "".join(f"{option}\n" for option in sample.options)
    return f"{question}\n{_DELIBERATE}{tags}{_SUFFIX[sample.kind]}"


def _video_holmes(sample: Sample) -> str:
    if sample.kind != "multiple choice":
        raise BadInput(f"prompt 'video-holmes-official' asks multiple choice, not {sample.kind}")
    options = ", ".join(f"{label}: {text}" for label, text in option_texts(sample.options).items())
    return _HOLMES.format(question=sample.question, options=options)


def _micro(sample: Sample) -> str:
    return "\n".join((sample.question, *sample.options))


def _problem(sample: Sample) -> str:
    """What a record says. The release shows `problem` alone; records that keep their options apart
    would then be asked without them."""
    texts = option_texts(sample.options) if sample.kind in _CHOICE else {}
    shown = (rf"\(?\b{label}[).:]\s*{re.escape(text)}" for label, text in texts.items())
    held = all(re.search(each, sample.question) for each in shown)
    return sample.question if held else _micro(sample)


TEMPLATES: Mapping[str, Callable[[Sample], str]] = {
    "video-r1": lambda sample: _video_r1(sample, _TAGS["video-r1"]),
    "video-r1-train": lambda sample: _video_r1(sample, _TAGS["video-r1-train"]),
    "video-holmes-official": _video_holmes,
    "micro": _micro,
    "micro-json": lambda sample: f"{_micro(sample)}\nJSON:",
    "problem": _problem,
}
