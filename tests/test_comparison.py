"""Samplers side by side: the studies of a comparison, its table, its figures, the commands that make them."""

from __future__ import annotations

import importlib.util
import json
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest

from jaxdqn import comparison, devices, lesson_figures, retrain, space, space_config
from jaxdqn.comparison import Comparison, Row, Setup
from jaxdqn.config import Config, Layout
from jaxdqn.space import Space
from tests.stand_in import StandIn

SCRIPTS = Path(__file__).parent.parent / "scripts"
SPACES = ("article", "default", "lesson", "linear")
VALUES = ("linear-bad", "linear-good")
GRID = """
env_steps = 400
eval_episodes = 2
[hyperparameters]
learning_rate = { choices = [1e-4, 1e-3, 1e-2] }
gradient_steps = { choices = [1, 2] }
hidden_width = 4
"""
PNG = b"\x89PNG\r\n"


class Seeded:
    """A stand-in with a seed."""

    made = 0

    def __init__(self, config: Config, layout: Layout, seed: int) -> None:
        self.config, self.layout, self.seed = config, layout, np.uint32(seed)
        self._stand_in = StandIn(config, layout)
        self.speed = self._stand_in.speed
        self.dispatch, self.read, self.params = self._stand_in.dispatch, self._stand_in.read, self._stand_in.params
        self.state, self.restore = self._stand_in.state, self._stand_in.restore
        self.fingerprint, self.state_bytes = self._stand_in.fingerprint, self._stand_in.state_bytes
        Seeded.made += 1

    def compile(self) -> float:
        return 0.0


def small(tmp_path: Path) -> Space:
    (tmp_path / "small.toml").write_text(GRID)
    return space.load(str(tmp_path / "small.toml"))


def compared(searched: Space, wanted: list[tuple[str, int]], trials: int = 6) -> Comparison:
    how = comparison.setup(searched, ["random"], trials)
    found = Comparison({searched.name: how})
    for rows in comparison.run(searched, how, wanted, make_population=Seeded):
        found.rows += rows
    return found


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_sampler_gets_the_same_number_of_trials_in_one_population(tmp_path: Path) -> None:
    before = Seeded.made
    found = compared(small(tmp_path), [(name, seed) for seed in (0, 1) for name in ("grid", "random", "tpe")])
    assert Seeded.made == before + 1
    assert {key: len(seeds) for key, seeds in found.studies().items()} == {
        ("small", "grid"): 2,
        ("small", "random"): 2,
        ("small", "tpe"): 2,
    }
    assert found.values("small", "tpe").shape == (2, 6)
    assert sorted(found.values("small", "grid")[0].round(6)) == [-16, -16, -9, -9, -4, -4]  # each cell once
    assert (found.env_steps("small", "random") == 400).all()


def test_a_study_does_not_depend_on_those_before_it(tmp_path: Path) -> None:
    searched = small(tmp_path)
    both = compared(searched, [("random", 0), ("tpe", 3)])
    assert compared(searched, [("tpe", 3)]).rows == both.rows[6:]


def test_a_study_that_is_cut_off_is_not_counted(tmp_path: Path) -> None:
    searched = small(tmp_path)
    asked: list[None] = []

    def stopped() -> bool:
        asked.append(None)
        return len(asked) > 6

    how = comparison.setup(searched, ["random"], 6)
    wanted = [("random", seed) for seed in range(9)]
    found = list(comparison.run(searched, how, wanted, stopped, Seeded))
    assert len(found) < 9
    assert all(len(rows) == 6 for rows in found)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [Row("a b", "tpe", 7, i, value, 10 + i) for i, value in enumerate([float("nan"), 9.5, -3.25])]
    comparison.write(tmp_path / "t.tsv", Comparison({"a b": Setup(3, 8, "x")}, rows))
    found = comparison.read(tmp_path / "t.tsv")
    assert str(found.rows) == str(rows)
    assert found.setups == {"a b": Setup(3, 8, "x")}
    best = [line.split("\t")[5] for line in (tmp_path / "t.tsv").read_text().splitlines()[2:]]
    assert best == ["nan", "9.5", "9.5"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n0", ""),
        ("# {", "# ["),
        ("trial\t", "number\t"),
        ("\t2\t-3", "\t1\t-3"),
        ("-3.25", "x"),
        ("tpe\t7\t2", "tpe\t8\t2"),
        ('"trials": 3', '"trials": 4'),
        ('"lanes"', '"lane"'),
        ('"trials": 3', f'"trials": {10**18}'),  # a study of so many is not made up to be compared
        ('"trials": 3', '"trials": 3.0'),
        ("\t1\n", f"\t{10**30}\n"),
        ("# {", "# " + "[" * 100_000),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path, rows = tmp_path / "t.tsv", [Row("a", "tpe", 7, i, -3.25, 1) for i in range(3)]
    comparison.write(path, Comparison({"a": Setup(3, 8, "x")}, rows))
    text = path.read_text()
    path.write_text(text.replace(old, new) if old in text else "0\n")
    with pytest.raises(ValueError, match=r"t\.tsv' is no table of a comparison"):
        comparison.read(path)


def test_the_best_so_far_passes_over_what_failed() -> None:
    values = np.array([[np.nan, 3.0, np.nan, 2.0, 5.0]])
    np.testing.assert_array_equal(lesson_figures.best_so_far(values), [[np.nan, 3, 3, 3, 5]])


def test_the_best_after_environment_steps_counts_only_trials_that_ended() -> None:
    values, steps = np.array([[1.0, 5.0, 2.0], [4.0, 3.0, 9.0]]), np.array([[10, 20, 30], [5, 5, 5]])
    found = lesson_figures.best_after(values, steps, np.array([4.0, 9.0, 10.0, 29.0, 30.0, 60.0]))
    np.testing.assert_array_equal(found, [[np.nan, np.nan, 1, 1, 5, 5], [np.nan, 4, 4, 9, 9, 9]])


def test_a_band_is_the_mean_over_the_studies_that_have_a_value() -> None:
    drawn = lesson_figures.band(np.array([[1.0, np.nan, np.nan], [2.0, 7.0, np.nan], [6.0, np.nan, np.nan]]))
    np.testing.assert_array_equal(drawn.mean, [3, 7, np.nan])
    assert 1 <= drawn.low[0] < 3 < drawn.high[0] <= 6
    assert (drawn.low[1], drawn.high[1]) == (7, 7)


def test_windows_show_what_was_proposed_when() -> None:
    values = np.array([[1.0, 3.0, np.nan, 8.0, 99.0], [3.0, 5.0, np.nan, np.nan, 99.0]])
    middles, drawn = lesson_figures.windows(values, 2)
    assert middles.tolist() == [1.5, 3.5]
    assert drawn.mean.tolist() == [3.0, 8.0]


def test_the_summary_says_how_often_random_search_is_ahead() -> None:
    best = {"random": (3.0, 5.0), "tpe": (4.0, 5.0)}  # of the four pairs random wins one and ties one
    rows = [
        Row("s", who, seed, n, value - n, 100)
        for who, its in best.items()
        for seed, value in enumerate(its)
        for n in range(4)
    ]
    random, tpe = lesson_figures.summary(Comparison({"s": Setup(4, 8, "x")}, rows))
    assert (random["random_ahead"], tpe["random_ahead"]) == (0.5, 0.375)
    assert [look["trials"] for look in tpe["best_after"]] == [1, 2, 4]
    assert tpe["best_after"][-1]["mean"] == 4.5
    assert (tpe["mean_return_of_trials"], tpe["env_steps_a_study"]) == (3.0, 400)


def test_figures_are_drawn_of_two_spaces_and_of_one_study(tmp_path: Path) -> None:
    rows = [
        Row(name, who, seed, n, float(n * (seed + 1)), 50)
        for name in ("a", "b")
        for who in ("random", "tpe", "optuna-tpe")
        for seed in range(3 if name == "a" else 1)
        for n in range(5)
    ]
    lesson_figures.draw_comparison(Comparison(dict.fromkeys("ab", Setup(5, 8, "x")), rows), tmp_path / "c.png")
    lesson_figures.article_figure(tmp_path / "a.png", [(0, 9.3), (1, 500.0), (3, 120.0)], "ours")
    for name in ("a", "c"):
        content = (tmp_path / f"{name}.png").read_bytes()
        assert content.startswith(PNG)
        assert len(content) < 150_000


def test_the_counts_of_the_article_are_those_published() -> None:
    assert lesson_figures.ARTICLE == (53, {10.0: 53 - 17, 400.0: 6, 490.0: 3, 500.0: 1})


@pytest.mark.parametrize("name", SPACES)
def test_a_space_of_the_lesson_can_be_searched(name: str) -> None:
    assert space.load(name).searched
    assert space_config.of(space.load(name)).env == "CartPole-v1"


@pytest.mark.parametrize("name", VALUES)
def test_a_value_file_of_the_lesson_can_be_trained(name: str) -> None:
    fixed = retrain.from_file(name)
    assert fixed.fixed["hidden_layers"] == 0
    assert set(fixed.fixed) >= set(space.load("linear").searched)


def test_only_the_lesson_has_a_grid() -> None:
    assert comparison.samplers_for(space.load("lesson")) == ["grid", "random", "tpe"]
    assert comparison.samplers_for(space.load("article")) == ["random", "tpe"]
    assert comparison.setup(space.load("lesson"), ["grid"], None).trials == 54
    assert comparison.setup(space.load("article"), ["tpe"], None).trials == comparison.TRIALS


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process, in an empty directory, with stand-ins for agents."""
    module = script("compare_samplers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "prepare", lambda: None)  # conftest.py has done it
    monkeypatch.setattr(module, "stop_on_signals", threading.Event)
    monkeypatch.setattr(comparison, "run", partial(comparison.run, make_population=Seeded))

    def run(**options: object) -> Outcome:
        known = {"spaces": "lesson", "samplers": None, "studies": 1, "trials": None, "lanes": 8, "output": None}
        with pytest.raises(SystemExit) as ended:
            module.compare(**(known | {"from_": None, "json_": False} | options))
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"studies": 0}, ["--studies 0", "int in [1, "]),
        ({"trials": 0}, ["--trials 0", "int in [1, "]),
        ({"lanes": 0}, ["--lanes 0", "int in [1, "]),
        ({"spaces": "leson"}, ["'leson'", "did you mean lesson?"]),
        ({"spaces": "lesson,,"}, ["--spaces", "each once"]),
        ({"spaces": "lesson,lesson"}, ["--spaces", "each once"]),
        ({"samplers": "tpe,best"}, ["'best'", "random"]),
        ({"samplers": "grid", "trials": 55}, ["--trials 55", "54 cells"]),
        ({"spaces": "article", "samplers": "grid"}, ["learning_rate is continuous"]),
        ({"spaces": "smallest"}, ["num_parameters", "one objective"]),
        ({"from_": Path("missing.tsv")}, ["'missing.tsv'", "no file"]),
    ],
)
def test_what_is_wrong_is_said_in_a_line_before_anything_is_written(
    tmp_path: Path, compare: Command, options: dict[str, object], words: list[str]
) -> None:
    outcome = compare(**options)
    assert outcome.status == 2
    assert re.fullmatch(r"error: [^\n]+\n", outcome.err), outcome.err
    assert [word for word in words if word not in outcome.err] == [], outcome.err
    assert not list(tmp_path.iterdir())


def test_a_table_grows_and_is_drawn_again_without_training(tmp_path: Path, compare: Command) -> None:
    (tmp_path / "small.toml").write_text(GRID)
    options: dict[str, object] = {"spaces": "small.toml", "output": Path("out"), "samplers": "random,grid"}
    path = tmp_path / "out" / "comparison.tsv"
    assert compare(**options).status == 0
    first = path.read_text()
    more = compare(**options, studies=2, json_=True)
    assert more.status == 0
    assert path.read_text().startswith(first)
    assert len(path.read_text().splitlines()) == 2 + 2 * 2 * 6
    assert [one["studies"] for one in json.loads(more.out)["samplers"]] == [2, 2]
    assert "study 1" in more.err
    assert "study 0" not in more.err

    other = compare(**options, trials=3)
    assert other.status == 2
    assert re.fullmatch(r"error: .*6 trials in 8 lanes.*3 trials in 8 lanes.*another --output\n", other.err)

    made, its = Seeded.made, (tmp_path / "out" / "comparison.png").read_bytes()
    assert compare(from_=path, output=Path("again")).status == 0
    assert (tmp_path / "again" / "comparison.png").read_bytes() == its
    assert not (tmp_path / "again" / "comparison.tsv").exists()
    assert Seeded.made == made


def test_there_is_no_figure_of_a_directory_without_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "prepare", lambda: None)
    with pytest.raises(SystemExit) as ended:
        script("article_figure").draw(tmp_path, None)
    assert ended.value.code == 2
    assert re.fullmatch(r"error: [^\n]+holds no sweep[^\n]+\n", capsys.readouterr().err)
