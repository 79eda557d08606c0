"""Graders of other tools: golden vectors from the documents, and what must hold for every text."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals import models, protocols
from evals.aggregate import aggregate
from evals.benchmarks import Benchmark, card
from evals.errors import BadInput
from evals.extract import (
    DRAWS,
    FAMILIES,
    GRADERS,
    READERS,
    Answer,
    Unparsed,
    extract,
    graders_for,
    phrase,
    resolve,
)
from evals.extract.official import lita_interval
from evals.grade import grade
from evals.run import evaluate
from evals.run import score as scored
from evals.types import Protocol, Reply, Sample

OPTIONS = ("A. red circle", "B. blue square", "C. green triangle", "D. man", "E. woman", "F. none")
CHOICE = "multiple choice"
INTERVAL = "temporal grounding"


def read(reply: str, grader: str, kind: str = CHOICE) -> str | None:
    answer = extract(reply, kind, grader, OPTIONS)
    return answer.value if isinstance(answer, Answer) else None


def score(reply: str, gold: str, grader: str, kind: str = CHOICE) -> float:
    return grade(extract(reply, kind, grader, OPTIONS), gold, kind, OPTIONS, grader=grader)


# --- the papers' released evaluators -----------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("<think>hm</think><answer> B </answer>", "B"),
        ("<answer>B.</answer>", "B."),  # the exact string: not equal to "B"
        ("<think><answer>A</answer></think><answer>B</answer>", "A"),  # first, even in thinking
        ("  B \n", "B"),
        ("I say B", "I say B"),
        ("<answer>B", "<answer>B"),
        ("<answer>x <answer>B</answer>", "x <answer>B"),
    ],
)
def test_video_r1(reply: str, value: str) -> None:
    assert extract(reply, CHOICE, "video-r1", OPTIONS) == Answer(value)


def test_video_r1_numbers_and_emptiness() -> None:
    assert extract("<answer>1,000</answer>", "numerical", "video-r1") == Answer("1,000", 1000.0)
    assert extract("<answer>3 m</answer>", "regression", "video-r1") == Answer("3 m", None)
    assert extract("<answer></answer>", "numerical", "video-r1") == Unparsed("empty answer")


@pytest.mark.parametrize(
    ("reply", "gold", "score_"),
    [("<answer>b. x</answer>", "B", 1.0), ("because", "B", 1.0), ("The answer is B", "B", 0.0)],
)
def test_onethinker_takes_the_first_character(reply: str, gold: str, score_: float) -> None:
    assert score(reply, gold, "onethinker") == score_
    assert read('<answer>{"time": [2, 5]}</answer>', "onethinker", INTERVAL) == "[2.0, 5.0]"
    assert read("<answer>2 to 5</answer>", "onethinker", INTERVAL) is None


def test_videossr_takes_the_first_character_of_the_reply() -> None:
    assert score(" B. because", "B", "videossr") == 1.0
    assert score("b", "B", "videossr") == 0.0
    assert score("<answer>B</answer>", "B", "videossr") == 0.0


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ('<think>a</think><answer>{"option": "D"}</answer>', "D"),
        ('<answer>{"option": "(D) man"}</answer>', "D"),
        ("<answer>D</answer>", "D"),  # the whole text goes to the scorer
        ("<think>a thing</think><answer>D</answer>", "A"),  # E2: an article is option A
        ("<answer>D.</answer>", "D"), ("D. man", "D"), ("no idea", None), ("", None),
    ],
)  # fmt: skip
def test_temporal_r1_options(reply: str, letter: str | None) -> None:
    assert read(reply, "temporal-r1") == letter


GOOD = '{"start_time": "2.7", "end_time": "15.0"}'


@pytest.mark.parametrize(
    ("reply", "interval"),
    [
        (f"<think>a</think> <answer>{GOOD}</answer>", (2.7, 15.0)),
        (f"before <think>a</think>\n\n<answer>\n{GOOD}\n</answer> after", (2.7, 15.0)),
        ('<think>a</think><answer>{"start_time": "15.0", "end_time": "2.7"}</answer>', (2.7, 15.0)),
        ('<think>a</think><answer>{"start_time": 2.7, "end_time": 15.0}</answer>', None),
        ('<think>a</think><answer>{"end_time": "15.0", "start_time": "2.7"}</answer>', None),
        ('<think>a</think><answer>{"start_time": "2.7s", "end_time": "15.0"}</answer>', None),
        ('<think>a</think><answer>{"start_time": "-3", "end_time": "15"}</answer>', None),
        ('<think>a</think><answer>{"start_time": "1.2.3", "end_time": "..."}</answer>', None),
        (f"<answer>{GOOD}</answer>", None),
        ("", None),
    ],
)
def test_temporal_r1_think_mode(reply: str, interval: tuple[float, float] | None) -> None:
    answer = extract(reply, INTERVAL, "temporal-r1")
    assert (answer.interval if isinstance(answer, Answer) else None) == interval


#: temporal_r1.md 4.2, every row of the table.
RELEASED_PARSER = [
    ("2.7-15.0", (2.7, 15.0)),
    ("15.0 - 2.7", (2.7, 15.0)),
    ("The event happens in the 24.3 - 30.4 seconds", (24.3, 30.4)),
    ("3.5 to 9, and later 12 to 15", (3.5, 9.0)),
    ("It starts at 12.0 seconds.\nIt ends at 20.0 seconds.", (12.0, 20.0)),
    ('{\n"start_time": "2.7",\n"end_time": "15.0"\n}', (2.7, 15.0)),
    (GOOD, None),
    ("[2.7, 15.0]", None), ("2.7s - 15.0s", None), ("between 3 and 9", None),
    ("from 5.0 seconds to 10.0 seconds", None),
    ("starts at 5.2 and ends at 7", None),
    ("It starts at 12.0 seconds and ends at 20.0 seconds.", None),
    ("0:05 to 0:12", (0, 5)),
    ("starts at 0:05! ends at 0:12", (0, 0)),
    ("starts at 00:00:18!ends at 00:00:23", (0, 0)),
    ("00:00:18 to 00:00:23", (0, 18)),
    ("0.0-0.0", (0, 0)),
    ("Out of Memory...", None),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "interval"), RELEASED_PARSER)
def test_temporal_r1_no_think(reply: str, interval: tuple[float, float] | None) -> None:
    answer = extract(reply, INTERVAL, "temporal-r1-no-think")
    assert (answer.interval if isinstance(answer, Answer) else None) == interval


#: What `reelproof` reads in the same replies: as said, never swapped, and nothing where two
#: intervals are named. "starts at 0:05" is five seconds, "1..5" is no number.
ROBUST = {
    "15.0 - 2.7": (15.0, 2.7), "3.5 to 9, and later 12 to 15": None, GOOD: (2.7, 15.0),
    "[2.7, 15.0]": (2.7, 15.0), "2.7s - 15.0s": (2.7, 15.0), "between 3 and 9": (3, 9),
    "from 5.0 seconds to 10.0 seconds": (5, 10), "starts at 5.2 and ends at 7": (5.2, 7),
    "It starts at 12.0 seconds and ends at 20.0 seconds.": (12, 20), "0:05 to 0:12": (5, 12),
    "starts at 0:05! ends at 0:12": (5, 12), "starts at 00:00:18!ends at 00:00:23": (18, 23),
    "00:00:18 to 00:00:23": (18, 23), "1..5 - 3": None,
}  # fmt: skip


@pytest.mark.parametrize("reply", [*dict(RELEASED_PARSER), "1..5 - 3"])
def test_the_robust_grader_beside_the_released_one(reply: str) -> None:
    answer = extract(reply, INTERVAL, "reelproof")
    expected = ROBUST.get(reply, dict(RELEASED_PARSER).get(reply))
    assert (answer.interval if isinstance(answer, Answer) else None) == expected


BOTH = "grounded qa"


@pytest.mark.parametrize(
    ("reply", "grader", "value"),
    [
        (f'<think>a</think><answer>{{"option": "D", {GOOD[1:]}</answer>', "temporal-r1",
         "D [2.7, 15.0]"),
        (f'<answer>{GOOD[:-1]}, "option": "(D) man"}}</answer>', "temporal-r1", "D [2.7, 15.0]"),
        ('<answer>{"option": "D", "start_time": 15, "end_time": 2.7}</answer>', "temporal-r1",
         "D [2.7, 15.0]"),
        ('<answer>{"option": "D"}</answer>', "temporal-r1", None),
        (f"<answer>{GOOD}</answer>", "temporal-r1", None),
        ('<answer>{"option": "D", "start_time": "nan", "end_time": "3"}</answer>', "temporal-r1",
         None),
        ("D. It happens in the 2.7 - 15.0 seconds", "temporal-r1-no-think", "D [2.7, 15.0]"),
        ("D", "temporal-r1-no-think", None),
        ("2.7 - 15.0", "temporal-r1-no-think", None),
    ],
)  # fmt: skip
def test_temporal_r1_reads_both(reply: str, grader: str, value: str | None) -> None:
    answer = extract(reply, BOTH, grader, OPTIONS)
    assert (answer.value if isinstance(answer, Answer) else None) == value


@pytest.mark.parametrize(
    ("reply", "grader", "letter"),
    [
        ('<think>a</think><answer>{"option": "B"}</answer>', "temporal-r1", "B"),
        ('<think>a</think><answer>{"option": "B"}</answer>', "reelproof", "B"),
        ('<think>a</think><answer>{"option": "B"}</answer>', "official:nextgqa", "B"),
        ("<answer>B</answer>", "video-r1", "B"), ("The answer is B.", "reelproof", "B"),
        ("B", "temporal-r1-no-think", "B"),
        (f"<answer>{GOOD}</answer>", "reelproof", ""), ("no idea", "reelproof", ""),
        ("2.7 - 15.0", "temporal-r1-no-think", ""),
    ],
)  # fmt: skip
def test_acc_qa_is_of_the_letter_alone(reply: str, grader: str, letter: str) -> None:
    """As NExT-GQA defines it; the question as a whole is unanswered all the same."""
    options = ("A. one", "B. two", "D. man")
    reading = extract(reply, BOTH, grader, options)
    assert isinstance(reading, Unparsed) and reading.letter == letter
    sample = Sample("a", "Which, and when?", BOTH, "B [2, 5]", "video", None, options)
    law = Protocol("t", grader=grader)
    row = scored(sample, Reply(reply, 9), 0, law)
    assert (row.outcome, row.score, row.prediction) == ("unparsed", 0.0, letter or None)
    found = aggregate([row], card("nextgqa"), law)
    assert (found["Acc@QA"], found["Acc@GQA"], found["mIoU"], found["coverage"]) == (
        float(letter == "B"), 0.0, 0.0, 0.0
    )  # fmt: skip
    cut = scored(sample, Reply(reply, 9, finished=False), 0, law)
    assert (cut.outcome, cut.prediction) == ("truncated", None)


THOUGHT = "<think>So it is a dog, hence</think> <answer>B</answer>"


@pytest.mark.parametrize(
    ("reply", "name", "think", "no_think"),
    [
        (THOUGHT, "mvbench", "A", "A"),  # the article, again
        (THOUGHT, "videomme", "B", "B"),
        ("Based on the video, C", "videomme", "B", "B"),
        ("Based on the video, C", "mvbench", "C", "C"),
        ('<answer>{"option": "C"}</answer> Best', "videomme", "C", "C"),
        ("<answer>yes</answer>", "tempcompass", None, None), ("B. two", "tempcompass", "B", "B"),
    ],
)  # fmt: skip
def test_temporal_r1_hands_on_to_the_scorer_of_each_benchmark(
    reply: str, name: str, think: str | None, no_think: str | None
) -> None:
    options = ("A. one", "B. two", "C. three", "D. four")
    for family, letter in (("temporal-r1", think), ("temporal-r1-no-think", no_think)):
        grader = resolve(family, name)
        found = extract(reply, "multiple choice", grader, options)
        assert (found.letter if isinstance(found, Answer) else None) == letter, grader
        assert graders_for(name).count(grader) == 1
    assert protocols.load("temporal-r1@think", name).grader == resolve("temporal-r1", name)


def test_where_the_released_scorer_stops_the_reply_is_unparsed() -> None:
    answer = extract("1..5 - 3", INTERVAL, "temporal-r1-no-think")
    assert isinstance(answer, Unparsed) and "the released scorer stops here" in answer.reason


@pytest.mark.parametrize(
    ("reply", "ours"),
    [
        (GOOD, (2.7, 15.0)), ("[2.7, 15.0]", (2.7, 15.0)), ("2.7s - 15.0s", (2.7, 15.0)),
        ("between 3 and 9", (3, 9)), ("starts at 5.2 and ends at 7", (5.2, 7)),
        ("from 5.0 seconds to 10.0 seconds", (5, 10)), ("0:05 to 0:12", (5, 12)),
        ("00:00:18 to 00:00:23", (18, 23)),
    ],
)  # fmt: skip
def test_reelproof_reads_what_the_released_parser_misses(
    reply: str, ours: tuple[float, float]
) -> None:
    answer = extract(reply, INTERVAL)
    assert isinstance(answer, Answer) and answer.interval == ours


# --- the benchmarks' owners --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        # benchmarks.md 2.1: letters are tried in order, so early ones win.
        ("C. The DNA test", "A"), ("E. A lover", "A"), ("B: A man", "A"),
        ("<answer>C</answer>", "C"), ("<answer>A</answer><answer> F. none </answer>", "F"),
        ("<think>A b</think><answer>[D</answer>", "D"), ("B", "B"), ("no letter", None),
        ("<answer>C: triangle or B</answer>", "C"),  # a colon comes before a bare letter
    ],
)  # fmt: skip
def test_official_video_holmes(reply: str, letter: str | None) -> None:
    assert read(reply, "official:video_holmes") == letter


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("(B)", "B"), ("B", "B"), ("A or (B) or (C)", "C"), ("I see A and then B", "B"),
        ("It was surely the green triangle over there", "C"), ("what?", None),
    ],
)  # fmt: skip
def test_official_videommmu_choice(reply: str, letter: str | None) -> None:
    answer = extract(reply, CHOICE, "official:videommmu", OPTIONS)
    assert answer == (Unparsed(DRAWS) if letter is None else Answer(letter))


@pytest.mark.parametrize(
    ("reply", "gold", "right"),
    [
        ("The total is 1,234.", "1234", 1), ("x = 3.429", "3.43", 1), ("about 3", "4", 0),
        ("so it is the Eiffel tower", "eiffel tower", 1), ("", "4", 0),
        ("I count 3 of them\nSo the answer is 4", "3", 0),  # only tails after key phrases
    ],
)  # fmt: skip
def test_official_videommmu_open(reply: str, gold: str, right: float) -> None:
    assert score(reply, gold, "official:videommmu", "free-form") == right


@pytest.mark.parametrize(
    ("reply", "letter"),
    [("The best answer is: C", "C"), ("Best option: C", "C"), ("c", None), ("Blue, so C", "B"),
     ("The answer is E", None)],
)  # fmt: skip
def test_official_videomme(reply: str, letter: str | None) -> None:
    assert read(reply, "official:videomme") == letter


@pytest.mark.parametrize(
    ("reply", "gold", "right"),
    [
        # benchmarks.md 2.6: empty, "(" and "." are correct, whatever the gold.
        ("", "A", 1), ("", "C", 1), ("(", "B", 1), (".", "B", 1), ("(B) blue", "B", 1),
        ("B) blue", "B", 1), ("(A)", "B", 0), ("Best option: (B)", "B", 0), ("b", "B", 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("grader", ["official:mvbench", "vlmevalkit:mvbench"])
def test_official_mvbench(reply: str, gold: str, right: float, grader: str) -> None:
    assert score(reply, gold, grader) == right


@pytest.mark.parametrize(
    ("reply", "letter"),
    [("B", "B"), ("B. blue square", "B"), ("C) x", "C"), ("(B)", None), ("The answer is B", None),
     ("E", None), ("b", None)],
)  # fmt: skip
@pytest.mark.parametrize("tool", FAMILIES)
def test_tempcompass_rules(reply: str, letter: str | None, tool: str) -> None:
    assert read(reply, f"{tool}:tempcompass") == letter


@pytest.mark.parametrize("tool", FAMILIES)
def test_tempcompass_yes_no_and_captions(tool: str) -> None:
    def letter(reply: str, *options: str) -> str | None:
        answer = extract(reply, CHOICE, f"{tool}:tempcompass", options)
        return answer.value if isinstance(answer, Answer) else None

    asked = ("A. yes", "B. no")
    assert [letter(r, *asked) for r in ("Yes, it does", "nope", "It does", "B")] == [
        "A", "B", None, None,
    ]  # fmt: skip
    pair = ("A. A dog runs.", "B. A dog sits.")
    said = ("Option 2", "Sentence A", "Caption B.", "2", "A dog sits.", "Option 3", "sits")
    assert [letter(r, *pair) for r in said] == ["B", "A", "B", "B", "B", None, None]


@pytest.mark.parametrize(
    ("reply", "gold", "kind", "score_"),
    [
        ("B. blue", "B", CHOICE, 1), ("b", "B", CHOICE, 1), ("The B", "B", CHOICE, 0),
        ("3", "4", "regression", 0.6), ("3.", "4", "regression", 0.6),
        ("3 chairs", "4", "regression", 0.6), ("about 3", "4", "regression", 0.0),
        ("1,000", "1000", "regression", 0.0), ("1", "2", "regression", 0.1),
    ],
)  # fmt: skip
def test_official_vsibench(reply: str, gold: str, kind: str, score_: float) -> None:
    assert score(reply, gold, "official:vsibench", kind) == pytest.approx(score_)


@pytest.mark.parametrize(
    ("reply", "letter"),
    [("B) blue", "B"), ("Best Option: (C) x", "C"), ("B", None), (") B", None), ("b)", "b")],
)
def test_official_mlvu(reply: str, letter: str | None) -> None:
    assert read(reply, "official:mlvu") == letter


def test_official_longvideobench_takes_the_first_capital() -> None:
    assert read("Based on the video, the answer is C", "official:longvideobench") == "B"
    assert read("The answer is C", "official:longvideobench") == "C"
    assert extract("none", CHOICE, "official:longvideobench", OPTIONS) == Unparsed(DRAWS)


@pytest.mark.parametrize(
    ("reply", "gold", "right"),
    [
        ("B [3, 5]", "B [2.0, 8.0]", 1),  # IoP 1, though IoU is 1/3
        ("B [0, 4]", "B [2.0, 8.0]", 1), ("B [0, 3]", "B [2.0, 8.0]", 0),
        ("A [3, 5]", "B [2.0, 8.0]", 0), ("B [9, 10]", "B [2, 3] [8.5, 20]", 1),
    ],
)  # fmt: skip
def test_official_nextgqa_needs_iop(reply: str, gold: str, right: float) -> None:
    assert score(reply, gold, "official:nextgqa", "grounded qa") == right


def test_official_rextime_reads_json() -> None:
    reply = 'Summary. {"relevant_span": [2, 8], "answer": "B"} as asked'
    assert score(reply, "B [2, 8]", "official:rextime", "grounded qa") == 1.0
    assert read("B, 2 to 8", "official:rextime", "grounded qa") is None


@pytest.mark.parametrize(
    ("reply", "interval"),
    [("<33> <66> it fell", (10, 20)), ("<66> <33>", (10, 20)), ("<0> <99>", (0, 30)),
     ("<33> <66> <99>", (10, 20)), ("<999> <33>", (10, 30)), ("<33>", (0, 30)), ("", (0, 30))],
)  # fmt: skip
def test_lita_interval(reply: str, interval: tuple[float, float]) -> None:
    assert lita_interval(reply, 30.0) == pytest.approx(interval)


# --- lmms-eval and VLMEvalKit ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grader", "reply", "letter"),
    [
        ("lmms-eval:videomme", "A man is seen. The answer is C", "A"),  # benchmarks.md 2.4
        ("lmms-eval:videomme", "The answer is C", "C"),
        ("lmms-eval:videomme", "So (B), no: D.", "D"),
        ("lmms-eval:mlvu", "E", None), ("lmms-eval:mlvu", "(F) none", None),  # 2.10: A to D only
        ("lmms-eval", "E", "E"), ("lmms-eval", "The answer is (F)", "F"), ("lmms-eval", "b", None),
        ("lmms-eval:longvideobench", "Based on the video, the answer is C", "B"),  # 2.8
        ("lmms-eval:longvideobench", "D. A book", "D"), ("lmms-eval:longvideobench", "so", None),
        ("lmms-eval:video_holmes", "(F)", "F"), ("lmms-eval:video_holmes", "hm", None),
        ("lmms-eval:nextqa", "B or C", "C"),
        ("lmms-eval:mvbench", "it is a (C)", "A"), ("lmms-eval:mvbench", "b. x", "B"),
        ("lmms-eval:perceptiontest", "It is C", "C"), ("lmms-eval:perceptiontest", "c", None),
        ("lmms-eval:scivideobench", "Likely B", "L"),  # 2.23: the pattern includes K and L
        ("lmms-eval:videomathqa", "Best option: C", "B"),  # glued prefixes are never cut out
        ("lmms-eval:vsibench", "B. x", "B"), ("lmms-eval:tempcompass", "A) x", "A"),
        ("vlmevalkit:videomme", "Best option: C", "B"),  # 2.4, with the next two
        ("vlmevalkit:videomme", "Based on the frames, C", "B"),
        ("vlmevalkit:videomme", "<think>A man</think><answer>C</answer>", "A"),
        ("vlmevalkit:videomme", "The answer is C", "C"), ("vlmevalkit:videomme", "E", None),
        ("vlmevalkit:longvideobench", "E", "E"),
        ("vlmevalkit:video_holmes", "<answer>C. The DNA test</answer>", "A"),
        ("vlmevalkit:video_holmes", "C", None),  # a missing tag is wrong
        ("vlmevalkit:videommmu", "A is out. Answer: (C)", "C"),
        ("vlmevalkit:videommmu", "A. or B.", "A"),  # the closing stop is stripped first
    ],
)  # fmt: skip
def test_other_harnesses(grader: str, reply: str, letter: str | None) -> None:
    assert read(reply, grader) == letter


@pytest.mark.parametrize(
    ("reply", "gold", "kind", "right"),
    [
        # benchmarks.md 2.3: the letter inside any word, with any word of the option's text
        ("B: The red one", "A", CHOICE, 0), ("B: The red area", "A", CHOICE, 1),
        ("Because it is green ... $B", "C", CHOICE, 1), ("$B", "C", CHOICE, 0),
        ("B: a thing", "A", CHOICE, 1),
        ("", "photosynthesis", "free-form", 1), ("o", "photosynthesis", "free-form", 1),
        ("3 apples", "3 phases of 50 Hz", "free-form", 1),
        ("search depth", "depth search", "free-form", 1),
        ("O(n^2) time", "It is O(n²)", "free-form", 1), ("five", "six", "free-form", 0),
    ],
)  # fmt: skip
def test_lmms_eval_mmvu_is_loose(reply: str, gold: str, kind: str, right: float) -> None:
    assert score(reply, gold, "lmms-eval:mmvu", kind) == right


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("There are 3 boxes", 3), ("Three boxes.", 3), ("twenty-one", 21),
        ("three hundred and twenty-one", 321), ("two thousand five", 2005), ("hundred", 100),
        ("one apple, room 2", 1), ("room 2, one apple", 2), ("-2.5 m", -2.5), ("none", None),
    ],
)  # fmt: skip
def test_lmms_eval_vsibench_numbers(reply: str, number: float | None) -> None:
    answer = extract(reply, "regression", "lmms-eval:vsibench")
    assert (answer.number if isinstance(answer, Answer) else None) == number


@pytest.mark.parametrize(
    ("reply", "interval"),
    [
        ("The event happens in the 24.3 - 30.4 seconds", (24.3, 30.4)),
        ("It starts at 12.0 seconds and ends at 20.0 seconds.", None),  # benchmarks.md 2.15
        (GOOD, None), ("2.7-15.0", None),  # no start, end or happen word
        ("start 2s to 5s", (2, 5)), ("it ends 5 – 2", (2, 5)),
        ("A specific example is : 20.8 - 30.0 seconds. It happens 1 - 2", (1, 2)),
    ],
)  # fmt: skip
def test_lmms_eval_charades(reply: str, interval: tuple[float, float] | None) -> None:
    answer = extract(reply, INTERVAL, "lmms-eval:charades_sta")
    assert (answer.interval if isinstance(answer, Answer) else None) == interval


def test_one_set_of_replies_many_scores() -> None:
    """evaluators.md 4: the extractor decides the headline; here on replies of our own."""
    replies = [
        ("The answer is B.", "B"), ("B. blue square", "B"), ("A man moved, so (D).", "D"),
        ("Because it moved, C", "C"), ("<answer>C</answer>", "C"), ("b", "B"),
    ]  # fmt: skip
    names = graders_for("videomme")
    found = {n: sum(score(r, gold, n) for r, gold in replies) for n in names}
    assert found == {
        "reelproof": 5.0, "strict": 1.0, "video-r1": 1.0, "onethinker": 3.0, "videossr": 1.0,
        "temporal-r1:videomme": 3.0, "temporal-r1-no-think:videomme": 3.0,
        "official:videomme": 3.0, "lmms-eval:videomme": 4.0, "vlmevalkit:videomme": 3.0,
    }  # fmt: skip


# --- names -------------------------------------------------------------------------------------


def test_families_are_resolved_by_benchmark() -> None:
    assert resolve("official", "mvbench") == "official:mvbench"
    assert resolve("lmms-eval", "mvbench") == "lmms-eval:mvbench"
    assert resolve("lmms-eval", "microworld") == "lmms-eval"
    assert resolve("strict", "mvbench") == "strict"
    assert resolve("official:mvbench", None) == "official:mvbench"
    for name, benchmark, why in (
        ("official", None, "needs a benchmark"), ("official", "mmvu", "by other means"),
        ("nobody", "mvbench", "unknown grader"), ("official:nobody", None, "unknown grader"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=why):
            resolve(name, benchmark)
    with pytest.raises(BadInput, match="needs a benchmark"):
        extract("B", CHOICE, "official", OPTIONS)


def test_all_graders_of_a_benchmark() -> None:
    names = graders_for("video_holmes")
    assert {f"{family}:video_holmes" for family in ("official", "lmms-eval", "vlmevalkit")} <= {
        *names
    }
    assert set(FAMILIES) - {"official"} <= set(graders_for(None)) and "temporal-r1" in names
    assert "official" not in graders_for(None) and "lmms-eval" in graders_for(None)
    assert all(name in GRADERS for name in (*names, *graders_for(None)))


def test_a_kind_that_a_grader_does_not_read_is_unparsed() -> None:
    found = extract("3", "numerical", "official:mvbench")
    assert found == Unparsed("official:mvbench reads no numerical answers")


# --- what must hold for every text -------------------------------------------------------------

PIECES = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "A", "B", "C", "Z", "a", " ", "\n", ".", ",",
     "(", ")", "[", "]", "{", "}", '"', "-", "–", ":", "1", "2.5", "1..5", "0:05", "to",
     "answer is ", "Answer:", "s", "end", "start", "happens", "red circle", "two hundred", "and",
     "é", "²",      "\x00", '"start_time": "1"', "<script>"],
)  # fmt: skip
REPLIES = st.one_of(st.text(), st.lists(PIECES, max_size=25).map("".join))
GOLDS = {
    CHOICE: "B", "numerical": "3", "regression": "4.5", "OCR": "STOP", "free-form": "a dog",
    INTERVAL: "[2, 5]", "grounded qa": "B [2, 5]", "ordering": "3, 7, 1",
}  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(reply=REPLIES, kind=st.sampled_from(list(READERS)), grader=st.sampled_from(list(GRADERS)))
def test_every_grader_is_total_and_deterministic(reply: str, kind: str, grader: str) -> None:
    answer = extract(reply, kind, grader, OPTIONS)
    assert answer == extract(reply, kind, grader, OPTIONS)
    assert isinstance(answer, Answer | Unparsed)
    value = grade(answer, GOLDS[kind], kind, OPTIONS, grader=grader)
    assert 0.0 <= value <= 1.0
    assert value == grade(answer, GOLDS[kind], kind, OPTIONS, grader=grader)
    if isinstance(answer, Answer):
        assert (answer.interval is not None) == (kind in (INTERVAL, "grounded qa"))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece",
    ["A ", "1-", "start 1", "to", '"', "(", "1,", "\n", "is ", "<answer>", "<think>", "</think>"],
)
def test_long_hostile_replies(piece: str) -> None:
    reply = piece * 5_000
    for grader, kind in itertools.product(GRADERS, READERS):
        if kind != "free-form":  # ROUGE compares 10,000 words, which is not ours to speed up
            grade(extract(reply, kind, grader, OPTIONS), GOLDS[kind], kind, OPTIONS, grader=grader)


# --- oracle, parrot and random -----------------------------------------------------------------

READ = [(name, kind) for name, grader in GRADERS.items() for kind in grader.reads]
CHOOSE = [name for name, kind in READ if kind == CHOICE]


@pytest.mark.parametrize(("grader", "kind"), READ)
def test_the_oracle_is_right_under_every_grader(grader: str, kind: str) -> None:
    reply = phrase(GOLDS[kind], kind, grader, OPTIONS)
    never = (kind == "OCR" and grader in ("video-r1", "onethinker")) or (
        kind == "free-form" and grader == "video-r1"
    )  # the family's released evaluator scores text 0
    assert score(reply, GOLDS[kind], grader, kind) == float(not never)


def asked(options: tuple[str, ...], n: int = 60) -> Benchmark:
    labels = [option[0] for option in options]
    samples = tuple(
        Sample(f"q{i}", "?", CHOICE, labels[i % len(labels)], "text", None, options)
        for i in range(n)
    )
    return Benchmark("made", "", samples, "", "")


@pytest.mark.parametrize("grader", CHOOSE)
@pytest.mark.parametrize("options", [OPTIONS[:4], ("A. yes", "B. no")], ids=["four", "yes-no"])
def test_parrot_and_random_give_chance_under_every_grader(
    grader: str, options: tuple[str, ...]
) -> None:
    questions, protocol = asked(options), Protocol("t", grader=grader)
    chance = 1 / len(options)
    rows = evaluate(models.load("oracle"), questions, protocol)
    assert [row.score for row in rows] == [1.0] * 60
    rows = evaluate(models.load("parrot"), questions, protocol)
    assert sum(row.score for row in rows) == 60 * chance
    runs = [evaluate(models.load("random"), questions, protocol, seed=seed) for seed in range(10)]
    right = sum(row.score for rows in runs for row in rows)
    assert abs(right - 600 * chance) < 4 * (600 * chance * (1 - chance)) ** 0.5
    assert {row.outcome for rows in runs for row in rows} == {"correct", "wrong"}


def test_phrases() -> None:
    assert phrase("B", CHOICE, "reelproof") == "<think>so</think><answer>B</answer>"
    assert phrase("B", CHOICE, "official:mlvu") == "B)"
    assert phrase("A", CHOICE, "official:tempcompass", ("A. yes", "B. no")) == "yes"
    assert phrase("A", CHOICE, "official:tempcompass", ("A. red", "B. blue")) == "A"
    assert phrase("[2, 5]", INTERVAL, "temporal-r1", thought="x") == (
        '<think>x</think><answer>{"start_time": "2", "end_time": "5"}</answer>'
    )
    assert phrase("0", INTERVAL, "temporal-r1-no-think") == "0"  # a parrot's answer
