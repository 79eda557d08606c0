"""Our own graders: golden replies per rule, and what must hold for every text."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.errors import BadInput
from evals.extract import READERS, Answer, Unparsed, extract, first_block, outside_think
from evals.extract.reelproof import NO_BLOCK

OPTIONS = ("A. red circle", "B. blue square", "C. green triangle")
HOLMES = (
    "A. The butler's alibi",
    "B. A man",
    "C. The DNA test",
    "D. Vitamin C",
    "E. A lover",
    "F. None",
)


def choice(block: str, options: tuple[str, ...] = OPTIONS) -> str | None:
    answer = extract(
        f"<think>hm</think>\n<answer>{block}</answer>", "multiple choice", "reelproof", options
    )
    return answer.value if isinstance(answer, Answer) else None


@pytest.mark.parametrize(
    "block",
    [
        "B", "b", " B ", "\nB\n", "B.", "B)", "(B)", "[B]", "(b)", "**B**", "`B`", '"B"', "B:",
        "Answer: B", "answer is B", "The answer is B.", "The correct answer is (B)", "Option B",
        "My final answer: option B", "B. blue square", "(B) blue square", "B) Blue  Square.",
        "B: blue square", "B blue square", "blue square", "Blue square.", "B. the blue one",
        "B, because it moved first", "The answer is B. blue square",
    ],
)  # fmt: skip
def test_readings_of_one_letter(block: str) -> None:
    assert choice(block) == "B"


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("", "empty answer"),
        ("  ", "empty answer"),
        ("D", "no option D"),  # not among the options
        ("I", "no option I"),
        ("A or B", "no option letter"),
        ("A, B", "ambiguous: A or B"),
        ("A. or (B)", "ambiguous: A or B"),
        ("A. red circle\nB. blue square", "ambiguous: A or B"),
        ("B. red circle", "ambiguous: A or B"),  # letter and text disagree
        ("AB", "no option letter"),
        ("a red circle moved", "no option letter"),  # an article, not option A
        ("A red circle moved", "no option letter"),
        ("not A", "no option letter"),
        ("the answer is not A", "no option letter"),
        ("It's C's turn", "no option letter"),
        ("circle", "no option letter"),
        ("42", "no option letter"),
    ],
)
def test_never_a_guess(block: str, reason: str) -> None:
    assert extract(f"<answer>{block}</answer>", "multiple choice", options=OPTIONS) == Unparsed(
        reason
    )


@pytest.mark.parametrize(
    ("block", "letter"),
    [
        # Early-letter traps: an extractor that looks for the letters in order says A to each.
        ("C. The DNA test", "C"), ("E. A lover", "E"), ("B: A man", "B"),
        ("D. Vitamin C", "D"), ("Vitamin C", "D"), ("C. A hair was found", "C"),
        ("It was vitamin C.", None), ("D. It was vitamin C", None),
    ],
)  # fmt: skip
def test_text_of_an_option_is_not_searched_for_letters(block: str, letter: str | None) -> None:
    assert choice(block, HOLMES) == letter


def test_a_bare_letter_is_the_label_even_if_some_option_reads_like_it() -> None:
    assert choice("B", ("A. B", "B. A")) == "B"


def test_two_options_of_equal_text_are_ambiguous() -> None:
    assert choice("red", ("A. red", "B. Red.")) is None
    assert choice("A", ("A. ", "B. ")) == "A"  # empty texts, as in two items of Video-MMMU


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("<think>maybe <answer>A</answer></think><answer>B</answer>", "B"),
        ("<answer>A</answer> no, wait <answer>B</answer>", "B"),
        ("<answer>B</answer><think><answer>A</answer></think>", "B"),
        ("<answer>B</answer><answer>A", "B"),  # the last complete block
        ("so it is red</think>\n<answer>B</answer>", "B"),  # opened by the chat template
        ("<answer>A</answer></think><answer>B</answer>", "B"),
        ("<think>x</think><answer>B</answer></think>", "B"),  # a stray closing tag
        ("<answer>A <answer>B</answer>", "B"),
        ("<answer>B</answer></answer>", "B"),
        ("<think>x</think> (B)", "B"),
        ("B", "B"), ("(B)", "B"), ("B.", "B"), ("Answer: B", "B"), ("answer:(B)\n", "B"),
        ("<think>a</think><think>b</think>B", "B"),
        ("<answer>A</answer></think>", None),  # all of it was thinking
        ("<think><answer>B</answer></think>", None),
        ("<think>I see <answer>B</answer>", None),  # thinking never ended
        ("<think>x</think><answer>B", None),  # truncated
        ("<think>x</think><answer></answer>", None),
        ("<answer>B</answer><answer></answer>", None),  # the last one is empty: no going back
        ("", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("grader", ["strict", "reelproof"])
def test_where_the_answer_stands(reply: str, letter: str | None, grader: str) -> None:
    answer = extract(reply, "multiple choice", grader, OPTIONS)
    assert (answer.value if isinstance(answer, Answer) else None) == letter


@pytest.mark.parametrize("reply", ["I think the answer is B", "b", "B. blue square", "Option B"])
def test_strict_reads_no_prose(reply: str) -> None:
    assert extract(reply, "multiple choice", "strict", OPTIONS) == NO_BLOCK
    assert extract(reply, "multiple choice", "reelproof", OPTIONS) == Answer("B")


@pytest.mark.parametrize(
    ("reply", "letter", "rule", "confidence"),
    [
        ("<think>x</think><answer>B</answer>", "B", "answer block", "high"),
        ("(B).", "B", "bare", "high"),
        ("b", "B", "leading label", "high"),
        ("B. blue square", "B", "leading label", "high"),
        ("Blue square.", "B", "leading label", "high"),
        ("B) since it moved first", "B", "leading label", "high"),
        ("The answer is B. blue square", "B", "leading label", "high"),
        ("<think>so</think>\nThe circle is red.\n\nB", "B", "last line", "medium"),
        ("A circle moves.\nAnswer: B.", "B", "last line", "medium"),
        ("It moves left, so the answer is B.", "B", "stated", "medium"),
        ("So the correct option is **(B)**, I think.", "B", "stated", "medium"),
        ("Therefore \\boxed{B}", "B", "stated", "medium"),
        ("We get $\\boxed{\\text{B}}$ here", "B", "stated", "medium"),
        ("The answer is A, I thought. The final answer is B", "B", "stated", "medium"),
        ("In short, the answer is A because it moved", "A", "stated", "medium"),
        ("I would go with (B) here", "B", "marked", "low"),
        ("I would go with option B here", "B", "marked", "low"),
        ("It must be the blue square over there", "B", "option text", "low"),
    ],
)
def test_rules_for_prose(reply: str, letter: str, rule: str, confidence: str) -> None:
    answer = extract(reply, "multiple choice", options=OPTIONS)
    assert isinstance(answer, Answer), answer
    assert (answer.value, answer.rule, answer.confidence) == (letter, rule, confidence)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("The answer is A or B", "ambiguous: A or B"),
        ("Perhaps the answer is A. Then again the answer is C.", "ambiguous: A or C"),
        ("The final answer is A, and the final answer is C", "ambiguous: A or C"),
        ("It could be (A), it could be (C)", "ambiguous: A or C"),
        ("So the answer is D.", "no option D"),
        ("The answer is a red thing", "no option letter"),
        ("I see it is not the blue square", "no option letter"),
        ("It isn’t the blue square", "no option letter"),
        ("It was vitamin C.", "no option letter"),
        ("a red circle or a blue square", "ambiguous: A or B"),
        ("A\nB\nC", "no option letter"),  # a list of labels, not an answer on the last line
        ("I would rather not say", "no option letter"),
    ],
)
def test_prose_is_never_guessed(reply: str, reason: str) -> None:
    found = extract(reply, "multiple choice", options=OPTIONS)
    assert found == Unparsed(f"no complete <answer> block; {reason}")


def test_broken_tags_are_not_prose() -> None:
    for reply in ("<answer>The answer is B", "The answer is B</answer>", "<answer >B</answer >"):
        assert extract(reply, "multiple choice", options=OPTIONS) == NO_BLOCK


def test_the_longer_of_two_nested_option_texts_is_meant() -> None:
    options = ("A. a dog", "B. a dog and a cat", "C. hotdogs")
    assert extract("I think I saw a dog and a cat", "multiple choice", options=options) == Answer(
        "B"
    )
    assert extract("I think I saw a dog there", "multiple choice", options=options) == Answer("A")


@pytest.mark.parametrize(
    "reply",
    [
        "B\u200b", "\ufeffB", "<answer>\u202eB\u202c</answer>", "<answer>\x00B\x07</answer>",
        "<answer>Ｂ</answer>", "（Ｂ）", "<answer>B\u00ad.</answer>", "B.\u2028", "\x1b B \x1b",
        "<answer>B<script>alert(1)</script></answer>"[:9] + "</answer>",
    ],
)  # fmt: skip
def test_invisible_characters_and_full_width_letters(reply: str) -> None:
    assert extract(reply, "multiple choice", options=OPTIONS) == Answer("B")


@pytest.mark.parametrize(
    "reply",
    ["<script>alert('B')</script>", "<answer><script>B</script></answer>", "\x00", "\ud800"],
)
def test_markup_and_rubbish_are_named(reply: str) -> None:
    assert isinstance(extract(reply, "multiple choice", options=OPTIONS), Unparsed)


@pytest.mark.parametrize(
    "block",
    [
        '{"option": "B"}', '{"answer": "B. blue square"}', '{"result": "(B)"}', '{"choice": "b"}',
        '```json\n{"option": "B"}\n```', ' {"option": "B", "why": "it moved"} ',
    ],
)  # fmt: skip
def test_json_answers(block: str) -> None:
    assert choice(block) == "B"
    assert extract(block, "multiple choice", options=OPTIONS) == Answer("B")


@pytest.mark.parametrize(
    "block",
    ['{"option": "D"}', '{"option": "A", "answer": "B"}', '{"option": ["B"]}', '{"option": "B"',
     "{" * 5000, '{"a":' * 1500 + "1" + "}" * 1500],
)  # fmt: skip
def test_json_that_does_not_say_one_option(block: str) -> None:
    assert choice(block) is None


def test_without_options_any_capital_counts() -> None:
    assert extract("<answer>G</answer>", "multiple choice") == Answer("G")


@pytest.mark.parametrize(
    ("block", "number"),
    [
        ("3", 3), ("3.0", 3), ("-2.5", -2.5), ("−2.5", -2.5), ("+4", 4), (".5", 0.5),
        ("1,000", 1000), ("12,345.5", 12345.5), ("1e3", 1000), ("3 circles", 3),
        ("about 42 m.", 42), ("$5", 5), ("50%", 50), ("x = 7", 7), ("3 = 3.0", 3),
        ("", None), ("three", None), ("3/4", None), ("24/7 / 3.429", None), ("10-20", None),
        ("1,5", None), ("1,0000", None), ("3.4.5", None), ("1e999", None), ("nan", None),
        ("2 of 3", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["numerical", "regression"])
def test_numbers(block: str, number: float | None, kind: str) -> None:
    answer = extract(f"<answer>{block}</answer>", kind)
    assert (answer.number if isinstance(answer, Answer) else None) == number


def test_a_bare_number_needs_no_tags() -> None:
    assert extract(" 1,000 ", "numerical") == Answer("1,000", number=1000.0)
    assert extract("there are 4", "numerical", "strict") == NO_BLOCK


@pytest.mark.parametrize(
    ("reply", "number", "rule"),
    [
        ("There are 4 chairs.", 4, "only number"),
        ("I counted 2 and then 3, so the answer is 5.", 5, "stated"),
        ("Total: 1,000 frames of 24 x 42", None, ""),
        ("3 or 4", None, ""),
        ("The answer is 3. No, the answer is 4.", None, ""),
        ("the count is 7 metres\nover 2 rooms", 7, "stated"),
        ("four", None, ""),
    ],
)
def test_numbers_in_prose(reply: str, number: float | None, rule: str) -> None:
    answer = extract(reply, "regression")
    found = (answer.number, answer.rule) if isinstance(answer, Answer) else (None, "")
    assert found == (number, rule)


@pytest.mark.parametrize(
    ("block", "interval"),
    [
        ("[2.7, 15.0]", (2.7, 15.0)), ("[2,15]", (2, 15)), ("(2, 15)", (2, 15)),
        ("2.7 to 15", (2.7, 15)), ("2.7-15.0", (2.7, 15)), ("2.7 - 15.0", (2.7, 15)),
        ("2.7s – 15.0s", (2.7, 15)), ("from 5.0 seconds to 10.0 seconds", (5, 10)),
        ("It starts at 12.0 seconds and ends at 20.0 seconds.", (12, 20)),
        ("starts at 3, over at 9", (3, 9)), ("3 is when it ends, not 9", (3, 9)),
        ("between 3 and 9", (3, 9)), ("0:05 to 0:12", (5, 12)), ("[1:02, 1:02:03.5]", (62, 3723.5)),
        ('["2.7", "15.0"]', (2.7, 15)), ('{"start_time": "2.7", "end_time": "15.0"}', (2.7, 15)),
        ("Event 3: [2, 5]", (2, 5)), ("[5, 2]", (5, 2)), ("[2, 2]", (2, 2)),
        ("[ 2 ,\n 5 ]", (2, 5)),
        ("", None), ("5", None), ("2 to 5 and 7 to 9", None), ("[2, 5] or [7, 9]", None),
        ('{"end_time": 15, "start_time": 2}', (2, 15)), ('{"time": [2, 15]}', (2, 15)),
        ('{"relevant_span": ["0:02", "0:15"], "answer": "A"}', (2, 15)),
        ('{"time": 2}', None), ("[-3, 15]", None), ("2.7 -15", None),
        ("1:75 to 2:80", None), ("5 minutes to 7 minutes", None), ("frames 3f to 9f", None),
        ("10% to 20%", None), ("3 frames to 9 frames", None), ("1.2.3 to 4", None),
        ("[nan, inf]", None), ("9" * 400 + " to " + "9" * 400, None),
    ],
)  # fmt: skip
def test_intervals(block: str, interval: tuple[float, float] | None) -> None:
    answer = extract(f"<answer>{block}</answer>", "temporal grounding")
    assert (answer.interval if isinstance(answer, Answer) else None) == interval


@pytest.mark.parametrize(
    ("kind", "block", "reason"),
    [
        ("numerical", "2 of 3", "ambiguous: several numbers"),
        ("numerical", "two", "no number"),
        ("numerical", "1e999", "not finite"),
        ("temporal grounding", "5", "no interval"),
        ("temporal grounding", "[2, 5] or [7, 9]", "ambiguous: several times"),
        ("temporal grounding", "2, 5, 7", "ambiguous: several times"),
        ("temporal grounding", "[-3, 15]", "a time before the start"),
        ("temporal grounding", "end 9, start 3", "ambiguous: the end is named before the start"),
    ],
)
def test_what_is_not_read_says_why(kind: str, block: str, reason: str) -> None:
    assert extract(f"<answer>{block}</answer>", kind) == Unparsed(reason)


def test_answers_are_values() -> None:
    for made in (Answer("B"), Unparsed("why")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, next(iter(vars(made))), "C")


@pytest.mark.parametrize(
    "reply", ["[2, 5]", "2 to 5", "2s - 5s", "<think>x</think>2.0 to 5.0 seconds."]
)
def test_a_bare_interval_needs_no_tags(reply: str) -> None:
    assert extract(reply, "temporal grounding") == Answer("[2.0, 5.0]", interval=(2.0, 5.0))


def test_an_interval_in_a_sentence() -> None:
    answer = extract("I saw it from 2 to 5", "temporal grounding")
    assert answer == Answer("[2.0, 5.0]", interval=(2.0, 5.0))
    assert isinstance(answer, Answer) and answer.rule == "only interval"
    assert extract("I saw it from 2 to 5", "temporal grounding", "strict") == NO_BLOCK


@pytest.mark.parametrize(
    "block",
    [
        "B [2, 5]", "B, 2 to 5", "(B) [2.0, 5.0]", "B. blue square, [2, 5]", "B from 2 to 5",
        '{"option": "B", "start_time": "2.0", "end_time": "5.0"}',
        '{"relevant_span": [2.0, 5.0], "answer": "B"}', "B: 2 - 5",
        "b (2s, 5s)", "The answer is B, [0:02, 0:05]", "B. blue square from 2s to 5s",
    ],
)  # fmt: skip
def test_grounded_qa(block: str) -> None:
    answer = extract(f"<answer>{block}</answer>", "grounded qa", options=OPTIONS)
    assert answer == Answer("B [2.0, 5.0]", interval=(2.0, 5.0))
    assert answer.letter == "B"


@pytest.mark.parametrize(
    "block", ["B", "[2, 5]", "D [2, 5]", "A or B [2, 5]", "[2, 5] B", "", "B 5"]
)
def test_grounded_qa_needs_letter_and_interval(block: str) -> None:
    answer = extract(f"<answer>{block}</answer>", "grounded qa", options=OPTIONS)
    assert isinstance(answer, Unparsed)


@pytest.mark.parametrize("kind", ["OCR", "free-form"])
def test_free_text(kind: str) -> None:
    assert extract("<answer> two\nlines </answer>", kind) == Answer("two\nlines")
    assert extract("<answer> </answer>", kind) == Unparsed("empty answer")
    assert extract("no tags", kind, "strict") == NO_BLOCK
    assert extract("<think>x</think> no tags ", kind) == Answer("no tags")


def test_first_block_and_outside_think() -> None:
    assert first_block("a</answer><answer> x\n</answer><answer>y</answer>") == "x"
    assert first_block("<answer>x") is None
    assert outside_think("a<think>b</think>c").split() == ["a", "c"]


@pytest.mark.parametrize(
    ("kind", "grader", "options"),
    [
        ("multiple choice", "no such grader", OPTIONS),
        ("no such kind", "reelproof", ()),
        ("multiple choice", "reelproof", ("red", "blue")),
        ("multiple choice", "reelproof", ("A. red", "A. blue")),
    ],
)
def test_bad_input_is_named(kind: str, grader: str, options: tuple[str, ...]) -> None:
    with pytest.raises(BadInput):
        extract("<answer>A</answer>", kind, grader, options)


# --- what must hold for every text -------------------------------------------------------------

PIECES = st.sampled_from(
    ["the answer is ", "option ", "\\boxed{", "not",
     "<think>", "</think>", "<answer>", "</answer>", "A", "B", "Z", " ", "\n", ".", ",", "(", ")",
     "[", "]", "{", '"', "-", ":", "1", "2.5", "0:05", "to", "answer", "is", "s", "end", "start",
     "red circle"],
)  # fmt: skip
REPLIES = st.one_of(st.text(), st.lists(PIECES, max_size=25).map("".join))


OURS = st.sampled_from(["strict", "reelproof"])


@settings(deadline=None)
@given(reply=REPLIES, kind=st.sampled_from(list(READERS)), grader=OURS)
def test_total_deterministic_and_idempotent(reply: str, kind: str, grader: str) -> None:
    """Every text is read, the same each time; an answer put in tags is read as itself."""
    answer = extract(reply, kind, grader, OPTIONS)
    assert answer == extract(reply, kind, grader, OPTIONS)
    if isinstance(answer, Unparsed):
        assert answer.reason
        return
    assert answer.value and answer.rule
    assert (answer.interval is not None) == (kind in ("temporal grounding", "grounded qa"))
    if not re.search("</?(think|answer)>", answer.value):  # free text may hold tags of its own
        assert extract(f"<answer>{answer.value}</answer>", kind, grader, OPTIONS) == answer


@settings(deadline=None)
@given(reply=REPLIES, kind=st.sampled_from(list(READERS)))
def test_reelproof_extends_strict(reply: str, kind: str) -> None:
    strict = extract(reply, kind, "strict", OPTIONS)
    if isinstance(strict, Answer):
        assert extract(reply, kind, "reelproof", OPTIONS) == strict


@settings(deadline=None)
@given(
    reply=REPLIES, shown=st.integers(2, 6), kind=st.sampled_from(["multiple choice", "grounded qa"])
)
def test_a_letter_is_always_among_the_options(reply: str, shown: int, kind: str) -> None:
    options = tuple(f"{letter}. text {letter.lower()}" for letter in "ABCDEF"[:shown])
    answer = extract(reply, kind, "reelproof", options)
    if isinstance(answer, Answer):
        assert answer.letter in "ABCDEF"[:shown]
        assert re.fullmatch(r"[A-F]( \[.*\])?", answer.value)


@settings(deadline=None)
@given(thinking=st.text(), letter=st.sampled_from("ABC"))
def test_thinking_never_changes_the_answer(thinking: str, letter: str) -> None:
    thinking = thinking.replace("</think>", "")
    reply = f"<think>{thinking}</think>\n<answer>{letter}</answer>"
    assert extract(reply, "multiple choice", "reelproof", OPTIONS) == Answer(letter)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "piece",
    [
        "<think>",
        "<answer>",
        "</answer>",
        "[ ",
        "1,",
        "((",
        "A ",
        " ",
        "1:",
        "answer is ",
        "option ",
    ],
)
@pytest.mark.parametrize("kind", list(READERS))
def test_long_hostile_replies_are_read_in_linear_time(piece: str, kind: str) -> None:
    extract(f"<answer>{piece * 10_000}x</answer>", kind, "reelproof", OPTIONS)
    extract(piece * 10_000, kind, "reelproof", OPTIONS)
    extract(f"so {piece * 10_000}", kind, "reelproof", OPTIONS)


#: What replies say before they commit themselves, and how they then do it.
ASIDES = st.sampled_from(
    ["I see a red circle.", "The blue square moves left.", "Option A looks wrong.",
     "It is not (C).", "Vitamin C is mentioned.", "A man enters.", "First I thought of B.",
     "Let's look again:", "1. the circle\n2. the square", "So it can't be the green triangle,",
     "\n\n", "Hmm."]
)  # fmt: skip
FINAL = st.sampled_from(
    ["The final answer is {}", "Final answer: {}.", "the final answer is ({}).",
     "**Final Answer:** {}", "So, the final answer is option {}!", "The final answer is: **{}**"]
)  # fmt: skip


@settings(deadline=None)
@given(asides=st.lists(ASIDES, max_size=6), final=FINAL, letter=st.sampled_from("ABC"))
def test_a_final_answer_is_never_overruled(asides: list[str], final: str, letter: str) -> None:
    """Whatever was considered before."""
    reply = " ".join([*asides, final.format(letter)])
    assert extract(reply, "multiple choice", options=OPTIONS) == Answer(letter)
