"""Hyperparameters trained anew, from a file and from a sweep."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxdqn import agent_directory, evaluate, prng, saved_agent, space, space_config, statistics
from jaxdqn import retrain as retrain_module
from jaxdqn.evaluate import Phase
from jaxdqn.events import Retrained
from jaxdqn.population import Population
from jaxdqn.retrain import Task, from_file, from_sweep, retrain
from jaxdqn.saved_agent import SavedAgent
from jaxdqn.study import open_study
from tests.small_sweep import GOOD, LUCKY, TRIALS, loaded, swept

TINY = """
env_steps = 400
rungs = [200]
keep_best = true
validation_episodes = 4
[hyperparameters]
learning_rate = 0.003
batch_size = 8
hidden_width = 4
hidden_layers = 1
buffer_size = 300
warmup_steps = 50
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of fewer resamples."""
    monkeypatch.setattr(statistics, "NUM_RESAMPLES", 199)


def test_a_file_in_which_something_varies_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "varies.toml"
    file.write_text(TINY + "gamma = { low = 0.9, high = 0.99 }\ntau = { choices = [0.1, 1.0] }\n")
    with pytest.raises(ValueError, match=r"varies\.toml' gives no single value for gamma, tau: scripts/sweep\.py"):
        from_file(str(file))


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "neither a file nor a preset"), ("gamma: 1", "no TOML"), ("gama = 1", "gama")],
)
def test_a_file_that_is_none_is_refused_as_a_space_is(tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=words):
        from_file(str(file))


def test_a_file_of_values_is_a_space_in_which_nothing_varies(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    found = from_file(str(tmp_path / "tiny.toml"))
    assert found.searched == {}
    assert found.hyperparams({}).hidden_width == 4


@pytest.mark.parametrize("trial", [None, 0])
def test_a_directory_without_a_sweep_is_refused(tmp_path: Path, trial: int | None) -> None:
    for directory in (tmp_path / "missing", tmp_path):
        with pytest.raises(ValueError, match=f"{directory}' holds no sweep"):
            from_sweep(directory, trial)


def test_a_sweep_gives_the_winner_of_its_fresh_seeds_or_the_trial_asked_for(tmp_path: Path) -> None:
    result = swept(tmp_path)
    assert result.best is not None
    assert result.best.number == LUCKY
    for trial, expected in ((None, GOOD), (GOOD, GOOD), (0, 0)):
        found, number, search_return = from_sweep(tmp_path, trial)
        known = result.plan.space.hyperparams(trials_of(tmp_path)[expected])
        assert (number, search_return) == (expected, {GOOD: 495.0, 0: 50.0}[expected])
        assert found.searched == {}
        assert found.hyperparams({}) == known
        assert space_config.of(found).env_steps == 20_000
        assert found.solved == 475.0
    for trial in (-1, TRIALS):
        with pytest.raises(ValueError, match=f"trial {trial} is not in .*: it has trials 0 to {TRIALS - 1}"):
            from_sweep(tmp_path, trial)


def trials_of(directory: Path) -> dict[int, dict[str, float]]:
    """The hyperparameters of the trials of a sweep."""
    searched = loaded(directory)
    identity = {**searched.identity(), "seed": 0, "objective": "mean_return"}
    study = open_study(directory / "study.log", "one-CartPole-v1", searched, identity, "random", 0)
    found = {trial.number: trial.params for trial in study.trials()}
    study.close()
    return found


def test_a_sweep_that_confirmed_nothing_gives_the_best_of_its_search(tmp_path: Path) -> None:
    swept(tmp_path, confirm_top=0)
    assert from_sweep(tmp_path, None)[1] == LUCKY


def test_a_sweep_without_a_finished_trial_has_no_winner(tmp_path: Path) -> None:
    searched = loaded(tmp_path)
    study = open_study(tmp_path / "study.log", "s", searched, {**searched.identity(), "seed": 0}, "random", 0)
    with pytest.raises(ValueError, match="no trial of study 's' has finished"):
        from_sweep(tmp_path, None)
    with pytest.raises(ValueError, match=r"trial 0 is not in .*: it has no trial"):
        from_sweep(tmp_path, 0)
    study.ask(1)
    study.commit()
    assert from_sweep(tmp_path, 0)[1:] == (0, None)


def test_a_trial_whose_asking_was_cut_off_has_no_values_to_train(tmp_path: Path) -> None:
    searched = space.load("default")
    study = open_study(tmp_path / "study.log", "s", searched, {**searched.identity(), "seed": 0}, "random", 0)
    study._study.ask()  # as Optuna does it: the values come later
    study.close()
    with pytest.raises(ValueError, match=r"trial 0 .* was never given all its values"):
        from_sweep(tmp_path, 0)


@pytest.fixture
def _compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Population] = []

    class Once(Population):
        def compile(self) -> float:
            return super().compile() if self.compiled is None else 0.0

    def make(*arguments: Any) -> Population:
        made.extend([] if made else [Once(*arguments)])
        return made[0]

    monkeypatch.setattr(retrain_module, "Population", make)


def played_again(agent: SavedAgent, seed_index: int) -> np.ndarray:
    """The returns of a saved agent on the episodes that it was scored on."""
    key = prng.fold(evaluate.family(prng.root(5), evaluate.Stream.SCORE, Phase.RETRAIN), seed_index)
    num, config = space_config.FRESH_EPISODES, saved_agent.config_of(agent)
    run = jax.jit(evaluate.greedy_returns, static_argnames=("config", "num_episodes", "max_episodes", "chunk"))
    return np.asarray(run(key, agent.params, agent.hyperparams, config, num, num, evaluate.chunk_of(num)))


@pytest.mark.usefixtures("_compiled_once")
def test_fresh_agents_differ_repeat_themselves_and_play_as_they_were_scored(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    searched, shown = from_file(str(tmp_path / "tiny.toml")), []
    first, compile_s = retrain(Task(searched, 0, 3, 5, save=tmp_path / "saved"), shown.append)
    assert first is not None
    assert compile_s > 0
    assert (first.number, first.seeds, first.search_return, first.env_steps) == (0, 3, None, [400] * 3)
    assert len({*first.returns}) == 3
    assert first.hyperparameters == searched.hyperparams({})._asdict()
    events = [event for event in shown if isinstance(event, Retrained)]
    assert {event.phase for event in events} == {Phase.RETRAIN}
    assert sum(len(event.ended) for event in events) == events[-1].done == events[-1].total == 3

    again, _ = retrain(Task(searched, 0, 3, 5), lambda _: None)
    assert again is not None
    assert (again.returns, again.updates) == (first.returns, first.updates)

    paths = agent_directory.find(tmp_path / "saved", 0)
    assert [path.name for path in paths] == [f"retrain-5-{seed}.json" for seed in range(3)]
    for seed, path in enumerate(paths):
        agent = saved_agent.load(path)
        assert agent.mean_return == first.returns[seed]
        assert agent.scores["num_episodes"] == space_config.FRESH_EPISODES
        assert agent.key == {"study_seed": 5, "phase": "retrain", "trial": 0, "seed_index": seed}
        assert played_again(agent, seed).mean() == pytest.approx(agent.mean_return, rel=1e-3)
