"""Recipes: strict, sourced, resolved in the stated order, and hashed by what shapes a number."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evals.errors import BadInput
from repro.arm import SUPERVISED
from repro.recipe import Recipe, Trainer, papers, switches_of
from repro.strict import nearest

KTR = papers()["ktr"]
OURS = {
    "prompts_per_step",
    "max_prompt_length",
    "dynamic_sampling",
    "advantage_eps",
}  # TRL does not have them


Edit = Callable[..., Path]
GONE = object()


@pytest.fixture
def edited(tmp_path: Path) -> Edit:
    """edited({"profiles.micro.trainer.beta.value": 0.05}) -> ktr's recipe, keys set or GONE."""

    def write(changes: dict[str, object]) -> Path:
        data = yaml.safe_load(KTR.read_text())
        for dotted, value in changes.items():
            *parents, last = dotted.split(".")
            place = data
            for key in parents:
                place = place[key]
            if value is GONE:
                del place[last]
            else:
                place[last] = value
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return path

    return write


@pytest.mark.parametrize("paper", papers())
def test_every_profile_loads(paper: str) -> None:
    recipe = Recipe.load(paper)
    assert recipe.profile_name == "micro" and {"micro", "paper"} <= set(recipe.profiles)
    for name in recipe.profiles:
        other = recipe.profile(name)
        assert other.paper == paper == other.file.parent.name
        assert set(other.run) <= other.arms.keys()


def test_presets_of_ktr() -> None:
    """The switches that tell the paper from its released code."""
    recipe = Recipe.load("ktr", "paper")
    paper, released = recipe.arm("ktr").switches, recipe.arm("ktr_released").switches
    assert (paper.sign, released.sign) == ("absolute", "signed")
    assert (paper.precision, released.precision) == ("fp32", "model")
    assert (paper.masked_positions, released.masked_positions) == ("kept", "collapsed")
    assert (paper.scope, released.scope) == ("completion", "group")
    assert (paper.rule, released.rule) == ("top", "quantile")
    assert (paper.identity, released.identity) == ("excluded", "allowed")
    assert (paper.normaliser, released.normaliser) == ("valid", "selected")
    assert (paper.length_bonus.length, released.length_bonus.length) == ("valid", "selected")
    assert paper.length_bonus.window == released.length_bonus.window == (320, 512)
    assert paper.ratios == released.ratios


def test_arms_differ_only_where_they_say() -> None:
    recipe = Recipe.load("ktr")
    full, only = recipe.arm("ktr").switches, recipe.arm("entropy_only").switches
    assert (only.ratios.entropy, only.ratios.visual, only.ratios.temporal) == (0.2, 0.0, 0.0)
    assert full.ratios.visual == 0.2
    assert {arm.trainer for arm in recipe.arms.values()} == {recipe.trainer}, "a fair comparison"


def test_every_value_has_a_source() -> None:
    for name in Recipe.load("ktr").profiles:
        sources = Recipe.load("ktr", name).sources
        assert len(sources) > 60 and all(text.strip() for text in sources.values())


def test_trainer_fields_are_names_of_trl() -> None:
    """Read from the sources: importing TRL takes seconds."""
    known: set[str] = set()
    for package, file in (
        ("trl", "trainer/grpo_config.py"),
        ("trl", "trainer/model_config.py"),
        ("transformers", "training_args.py"),
    ):
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        tree = ast.parse((Path(spec.origin).parent / file).read_text())
        known |= {
            node.target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
    assert {field.name for field in fields(Trainer)} - known == OURS


BETA = "profiles.micro.trainer.beta"
LEAF = {"value": 0.04, "source": "chosen"}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("profiles.micro.trainer.betta", LEAF, ("trainer.betta", "did you mean 'beta'?")),
        ("presets.paper.sgn", LEAF, ("presets.paper.sgn", "did you mean 'sign'?")),
        ("profiles.micro.view2", {}, ("profiles.micro.view2", "did you mean 'view'?")),
        ("titel", "KTR", ("recipe.titel", "did you mean 'title'?")),
        (f"{BETA}.value", "1e-4", ("beta", "YAML reads 1e-4 as text: write 1.0e-4")),
        (f"{BETA}.value", True, ("beta", "finite number, got True")),
        (f"{BETA}.value", float("nan"), ("beta", "finite number, got nan")),
        (f"{BETA}.value", float("inf"), ("beta", "finite number, got inf")),
        (f"{BETA}.unit", "nats", ("beta.unit", "unknown key")),
        (BETA, 0.04, ("beta", "{value: …, source: …} instead of 0.04")),
        (BETA, GONE, ("profiles.micro.trainer.beta", "this key is missing")),
        ("profiles.micro.trainer.max_steps.value", 1.5, ("max_steps", "a whole number, got 1.5")),
        ("profiles.micro.trainer.max_steps.value", True, ("max_steps", "a whole number, got True")),
        *(
            (f"profiles.micro.trainer.{name}.value", value, (name, words))
            for name, value, words in (
                ("num_iterations", 0, "at least 1, not 0"),
                ("save_steps", 0, "at least 1"),
                ("prompts_per_step", 0, "at least 1"),
                ("num_generations", 1, "at least 2"),
                ("max_completion_length", 0, "at least 1"),
                ("max_steps", 0, "at least 1"),
                ("learning_rate", -1.0, "at least 0"),
                ("beta", -0.1, "at least 0"),
                ("top_k", -1, "at least 0"),
                ("top_p", 0.0, "in (0, 1], not 0"),
                ("temperature", 0.0, "above 0"),
                ("lr_scheduler_type", "cosin", "one of linear"),
            )
        ),
        ("profiles.micro.trainer.bf16.value", 1, ("bf16", "true or false, got 1")),
        ("profiles.micro.trainer", 3, ("profiles.micro.trainer", "expected a mapping")),
        ("profiles.micro.model.id.value", 7, ("model.id", "expected text, got 7")),
        ("profiles.micro.model.revision.value", 7, ("revision", "text, or expected null, got 7")),
        (f"{BETA}.source", "memory", ("beta.source", "'chosen' or one of")),
        (f"{BETA}.source", " ", ("beta.source", "expected text")),
        ("presets.paper.sign.value", "absolut", ("sign", "one of absolute, signed")),
        ("presets.paper.sign", GONE, ("arms.grpo.switches.sign", "this key is missing")),
        ("profiles.micro.seeds.value", [0, "x"], ("seeds", "a whole number, got 'x'")),
        ("profiles.micro.seeds.value", 0, ("seeds", "expected a list, got 0")),
        ("profiles.micro.switches.length_bonus.window.value", [12], ("window", "2 items")),
        ("arms.ktr_released.preset", "relased", ("arms.ktr_released.preset", "'released'")),
        ("arms.ktr.source", GONE, ("arms.ktr.source", "expected text")),
        ("arms.ktr.method", "kt", ("arms.ktr.method", "did you mean 'ktr'?")),
        ("arms.ktr.method", "zz", ("arms.ktr.method", "grpo, ktr, random, t_grpo")),
        ("arms.ktr.methd", "ktr", ("arms.ktr.methd", "did you mean 'method'?")),
        ("title", GONE, ("recipe.title", "this key is missing")),
        ("profiles", [], ("no profile 'micro'",)),
        ("presets", None, ("presets", "expected a mapping")),
    ],
)
def test_a_mistake_is_one_sentence(
    edited: Edit, key: str, value: object, words: tuple[str, ...]
) -> None:
    path = edited({key: value})
    with pytest.raises(BadInput) as caught:
        Recipe.load(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("paper", papers())
def test_a_papers_methods_are_the_declared_ones(paper: str) -> None:
    methods = importlib.import_module(f"repro.{paper}.method").METHODS
    assert set(methods) == set(switches_of(paper).methods) - {SUPERVISED}


def test_an_arm_may_start_elsewhere(edited: Edit) -> None:
    """In one profile, from a checkpoint of the same sizes; other arms' numbers stay valid."""

    def model(**changes: object) -> dict[str, object]:
        own = {"id": "org/other", "revision": "unresolved", "freeze_vision": False,
               "architecture": "Qwen2.5-VL-7B", **changes}  # fmt: skip
        return {k: {"value": v, "source": "chosen"} for k, v in own.items()}

    recipe = Recipe.load(edited({"profiles.paper.arms": {"random": {"model": model()}}}), "paper")
    assert recipe.start("random").id == "org/other" and recipe.start("ktr") == recipe.model
    assert recipe.start(None) == recipe.model
    assert recipe.fingerprint != Recipe.load("ktr", "paper").fingerprint
    assert recipe.profile("micro").fingerprint == Recipe.load("ktr").fingerprint
    for change, words in (
        ({"architecture": "Qwen2.5-VL-3B"}, "must be the profile's, Qwen2.5-VL-7B"),
        ({"id": 7}, "expected text, got 7"),
    ):
        path = edited({"profiles.paper.arms": {"random": {"model": model(**change)}}})
        with pytest.raises(BadInput, match=words):
            Recipe.load(path, "paper")


def test_an_unknown_arm_to_run(edited: Edit) -> None:
    path = edited({"profiles.micro.run.value": ["grpo", "ktrr"]})
    with pytest.raises(BadInput, match="no arm 'ktrr'; did you mean 'ktr'"):
        Recipe.load(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("paper: ktr\npaper: ktr\n", ":2: the key 'paper' is given twice"),
        ("paper: [ktr\n", ":2: "),
        ("paper: &x [*x]\n", "recipe.title: this key is missing"),
    ],
)
def test_broken_yaml_names_the_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        Recipe.load(path)
    assert words in str(caught.value)


def test_names_that_do_not_exist() -> None:
    with pytest.raises(BadInput, match="no paper 'ktt'; did you mean 'ktr'"):
        Recipe.load("ktt")
    with pytest.raises(BadInput, match="no profile 'mirco'; did you mean 'micro'"):
        Recipe.load("ktr", "mirco")
    with pytest.raises(BadInput, match="no file"):
        Recipe.load("mine.yaml")
    assert nearest("zzz", ("a", "b")) == "; known: a, b"


def test_fingerprint_moves_with_what_shapes_a_number(edited: Edit) -> None:
    recipe = Recipe.load("ktr")
    known = recipe.fingerprint
    assert len(known) == 64 and Recipe.load(edited({})).fingerprint == known
    assert recipe.profile("paper").fingerprint != known
    other = recipe.trainer.beta + 0.01
    assert Recipe.load(edited({f"{BETA}.value": other})).fingerprint != known
    # What is said about a value, and which arms and seeds run, do not shape a number.
    assert Recipe.load(edited({f"{BETA}.source": "chosen"})).fingerprint == known
    assert Recipe.load(edited({"profiles.micro.seeds.value": [7]})).fingerprint == known


def test_decoding_and_protocols() -> None:
    recipe = Recipe.load("ktr")
    sampled, greedy = recipe.decoding(seed=3), recipe.decoding(greedy=True, seed=3)
    assert (sampled.samples, sampled.seed) == (recipe.evaluation.samples, 3)
    assert sampled.temperature == recipe.evaluation.temperature
    assert (greedy.samples, greedy.temperature, greedy.seed) == (1, 0.0, 3)
    paper = recipe.profile("paper")
    assert paper.training_protocol.prompt == "video-r1-train"
    assert paper.protocol(paper.decoding()).prompt == "video-r1"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
TREES = st.recursive(
    SCALARS,
    lambda part: (
        st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=8), part, max_size=3)
    ),
    max_leaves=8,
)


@given(TREES)
def test_any_yaml_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: object
) -> None:
    path = tmp_path_factory.mktemp("any") / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(BadInput):
        Recipe.load(path)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"", b"- a", b"a: &x [*x]", b"!!python/object:os.x {}"]
)
def test_broken_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(BadInput):
        Recipe.load(path)
