"""Search spaces: what loads, what is derived from it, and what is refused in which words."""

from __future__ import annotations

import difflib
import math
import tracemalloc
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from jaxdqn import space, space_config
from jaxdqn.config import Config, bucket_of
from jaxdqn.hyperparams import KINDS, Hyperparams, Kind, check_value, defaults, stack
from jaxdqn.space import Space

HUGE = "1" + "0" * 400  # no float holds it


def written(folder: Path, hyperparameters: str = "", head: str = "episodes = 200") -> str:
    """Return the name of a space file."""
    path = folder / "mine.toml"
    path.write_text(f"{head}\n[hyperparameters]\n{hyperparameters}\n", "utf-8")
    return str(path)


def load(folder: Path, hyperparameters: str = "", head: str = "episodes = 200") -> Space:
    return space.load(written(folder, hyperparameters, head))


def refusal(name: str, **overrides: Any) -> str:
    """Return the one line with which a space is refused."""
    with pytest.raises(ValueError, match=r".") as caught:
        space.load(name, **overrides)
    message = str(caught.value)
    assert message.startswith("space ")
    assert name in message or Path(name).name in message
    assert len(message.splitlines()) == 1
    return message


def assert_says(message: str, words: list[str]) -> None:
    assert [word for word in words if word not in message] == [], message


# Presets


@cache
def config_of(preset: str) -> Config:
    return space_config.of(space.load(preset))


PRESETS = {
    "acrobot": "Acrobot-v1",
    "article": "CartPole-v1",
    "default": "CartPole-v1",
    "lesson": "CartPole-v1",
    "linear": "CartPole-v1",
    "linear-bad": "CartPole-v1",
    "linear-good": "CartPole-v1",
    "mountaincar": "MountainCar-v0",
    "smallest": "CartPole-v1",
}


def test_the_presets_and_their_environments_are_these() -> None:
    assert {name: space.load(name).env for name in space.presets()} == PRESETS


@pytest.mark.parametrize("name", space.presets())
def test_a_preset_loads_and_has_a_config(name: str) -> None:
    loaded = space.load(name)
    assert loaded.name == name
    assert config_of(name).fixed != ()


def test_the_article_searches_what_the_article_searched() -> None:
    article = space.load("article")
    assert article.searched == {
        "learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
        "gamma": CategoricalDistribution([0.9, 0.95, 0.99]),
        "batch_size": CategoricalDistribution([16, 32, 64, 128]),
        "buffer_size": CategoricalDistribution([10_000, 50_000, 100_000]),
        "train_period": CategoricalDistribution([8, 16, 128, 256]),
        "target_period": CategoricalDistribution([10, 100, 1000]),
        "warmup_steps": CategoricalDistribution([1000, 5000]),
        "gradient_steps": CategoricalDistribution([1, 4, 16]),
        "max_grad_norm": CategoricalDistribution([1.0, 10.0]),
        "normalize_obs": CategoricalDistribution([True, False]),
        "epsilon_end": FloatDistribution(0.0, 0.2),
        "epsilon_decay_steps": CategoricalDistribution([1_000, 10_000, 100_000]),
    }
    assert article.fixed == {"epsilon_start": 0.9, "hidden_width": 256, "hidden_layers": 2}
    assert (article.episodes, article.env_steps, article.eval_episodes) == (200, None, 1000)
    assert (article.rungs, article.keep_best, article.stop_when_perfect) == ((), False, False)


def test_the_article_is_compiled_with_the_shapes_that_serve_all_its_agents() -> None:
    config = config_of("article")
    assert (config.env, config.env_steps, config.episodes) == ("CartPole-v1", 100_000, 200)
    assert config.eval_episodes == 1000
    assert (config.rungs, config.keep_best, config.stop_when_perfect) == ((), False, False)
    assert (config.tick, config.slots, config.batch_sizes) == (8, 100_000, (16, 32, 64, 128))
    assert (config.hidden_width, config.hidden_layers, config.linear) == (256, 2, False)
    assert len(config.obs_mean) == len(config.obs_std) == 4
    assert all(std > 0 for std in config.obs_std)


# Budgets, overrides and what is compiled in


def test_an_override_replaces_its_key_and_no_other() -> None:
    changed = space.load("article", episodes=7, eval_episodes=3)
    assert (changed.episodes, changed.eval_episodes) == (7, 3)
    assert changed.searched == space.load("article").searched


def test_an_override_that_is_none_replaces_nothing() -> None:
    assert space.load("article", env=None, episodes=None, env_steps=None, eval_episodes=None) == space.load("article")


def test_an_override_of_the_environment_changes_what_a_budget_in_episodes_amounts_to() -> None:
    assert space_config.of(space.load("default", env="MountainCar-v0", episodes=50)).env_steps == 50 * 200


def test_an_override_is_checked_like_the_key_it_replaces() -> None:
    assert_says(refusal("default", eval_episodes=0), ["eval_episodes = 0", "int in [1, 100000]"])


@pytest.mark.parametrize(
    ("head", "env_steps"),
    [
        ("episodes = 20", 10_000),
        ("env_steps = 700", 700),
        ("episodes = 20\nenv_steps = 700", 700),
        ("episodes = 20\nenv_steps = 70_000", 10_000),
    ],
)
def test_an_agent_lives_until_the_first_of_its_budgets_is_reached(tmp_path: Path, head: str, env_steps: int) -> None:
    assert space_config.of(load(tmp_path, head=head)).env_steps == env_steps


def test_a_fixed_value_is_compiled_in_and_a_searched_one_is_not(tmp_path: Path) -> None:
    config = space_config.of(load(tmp_path, "gamma = 0.5\ntau = { low = 0.1, high = 0.2 }"))
    fixed = dict(config.fixed)
    assert fixed.pop("gamma") == 0.5
    assert fixed == {name: value for name, value in defaults()._asdict().items() if name not in ("gamma", "tau")}


def test_what_a_space_does_not_name_is_compiled_in_with_its_default(tmp_path: Path) -> None:
    assert dict(space_config.of(load(tmp_path)).fixed) == defaults()._asdict()


def test_a_fixed_value_is_given_to_every_trial(tmp_path: Path) -> None:
    loaded = load(tmp_path, "gamma = 0.5\ntau = { low = 0.1, high = 0.2 }")
    assert loaded.hyperparams({"tau": 0.15}) == defaults()._replace(gamma=0.5, tau=0.15)


def test_a_whole_number_stands_for_a_float_and_the_other_way_round(tmp_path: Path) -> None:
    fixed = load(tmp_path, "gamma = 1\nbatch_size = 32.0").fixed
    assert [(type(value), value) for value in fixed.values()] == [(float, 1.0), (int, 32)]


def test_observations_are_not_sampled_where_nothing_normalises_them(tmp_path: Path) -> None:
    config = space_config.of(load(tmp_path))
    assert (config.obs_mean, config.obs_std) == ((), ())


@pytest.mark.parametrize(
    ("layers", "linear", "largest"),
    [("0", True, 0), ("{ low = 0, high = 3 }", True, 3), ("{ choices = [2, 1] }", False, 2)],
)
def test_the_linear_model_is_compiled_only_where_it_is_in_the_space(
    tmp_path: Path, layers: str, linear: bool, largest: int
) -> None:
    config = space_config.of(load(tmp_path, f"hidden_layers = {layers}"))
    assert (config.linear, config.hidden_layers) == (linear, largest)


@pytest.mark.parametrize(
    ("periods", "rungs", "tick"),
    [
        ("4", "[]", 4),
        ("{ choices = [8, 12] }", "[]", 4),
        ("{ choices = [8, 12] }", "[6, 600]", 2),
        ("{ choices = [8, 12] }", "1001", 1),
        ("{ low = 10, high = 100, step = 5 }", "[]", 5),
        ("{ low = 10, high = 1000, step = 5 }", "[]", 5),
        ("{ low = 10, high = 1001, log = true }", "[]", 1),
    ],
)
def test_the_tick_divides_every_train_period_and_rung(tmp_path: Path, periods: str, rungs: str, tick: int) -> None:
    loaded = load(tmp_path, f"train_period = {periods}", f"env_steps = 5_000\nrungs = {rungs}")
    assert space_config.of(loaded).tick == tick


def test_a_rung_beyond_the_budget_does_not_shorten_the_tick(tmp_path: Path) -> None:
    assert space_config.of(load(tmp_path, head="env_steps = 1_000\nrungs = [1_001]")).tick == 4


@pytest.mark.parametrize(
    ("periods", "multiple"), [("6", 6), ("{ choices = [4, 6] }", 12), ("{ low = 1, high = 64 }", 1)]
)
def test_the_common_multiple_of_train_periods_is_given_where_it_is_small(
    tmp_path: Path, periods: str, multiple: int
) -> None:
    assert space_config.common_period(load(tmp_path, f"train_period = {periods}")) == multiple


@pytest.mark.parametrize(("buffers", "slots"), [("999", 1_000), ("{ choices = [300, 800] }", 800), ("50_000", 5_000)])
def test_the_replay_holds_the_largest_buffer_but_no_more_than_an_agent_sees(
    tmp_path: Path, buffers: str, slots: int
) -> None:
    assert space_config.of(load(tmp_path, f"buffer_size = {buffers}", "env_steps = 5_000")).slots == slots


# Rungs


@pytest.mark.parametrize(
    ("rungs", "expected"),
    [
        ("300", (300, 600, 900)),
        ("500", (500, 1000)),
        ("1000", (1000,)),
        ("1001", ()),
        ("[]", ()),
        ("[700, 50, 700]", (50, 700)),
        ("[1000, 1001]", (1000,)),
    ],
)
def test_rungs_are_a_distance_or_a_list_within_the_budget(
    tmp_path: Path, rungs: str, expected: tuple[int, ...]
) -> None:
    loaded = load(tmp_path, head=f"env_steps = 1_000\nrungs = {rungs}")
    assert loaded.rungs == space_config.of(loaded).rungs == expected


def test_too_many_rungs_are_refused_without_being_listed(tmp_path: Path) -> None:
    name = written(tmp_path, head="env_steps = 400_000\nrungs = 1")
    tracemalloc.start()
    try:
        message = refusal(name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_says(message, ["rungs = 1", "400,000", "at most 1,000"])
    assert peak < 4_000_000  # bytes; 2**30 steps are allowed, and a list of so many rungs is tens of GB


# Batch shapes


@pytest.mark.parametrize(
    ("batches", "shapes"),
    [
        ("48", (48,)),
        ("{ choices = [128, 7, 64] }", (7, 64, 128)),
        ("{ low = 30, high = 34 }", (30, 31, 32, 33, 34)),
        ("{ low = 16, high = 128, step = 16 }", (16, 32, 48, 64, 80, 96, 112, 128)),
        ("{ low = 16, high = 128 }", (16, 32, 64, 128)),
        ("{ low = 17, high = 100 }", (32, 64, 100)),
        ("{ low = 1, high = 1000, log = true }", (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)),
        ("{ choices = [3, 5, 6, 7, 9, 10, 11, 12, 40] }", (4, 8, 16, 32, 40)),
    ],
)
def test_many_batch_sizes_share_power_of_two_shapes_and_the_largest_fits(
    tmp_path: Path, batches: str, shapes: tuple[int, ...]
) -> None:
    assert space_config.of(load(tmp_path, f"batch_size = {batches}")).batch_sizes == shapes


# Domains


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gamma = { low = 0, high = 1 }", FloatDistribution(0.0, 1.0)),
        ("gamma = { low = 0.1, high = 0.5, step = 0.2 }", FloatDistribution(0.1, 0.5, step=0.2)),
        ("gamma = { low = 0.5, high = 0.5 }", FloatDistribution(0.5, 0.5)),
        ("batch_size = { low = 8, high = 64, log = true }", IntDistribution(8, 64, log=True)),
        ("batch_size = { low = 8.0, high = 64, step = 8.0 }", IntDistribution(8, 64, step=8)),
        ("double_q = { choices = [true] }", CategoricalDistribution([True])),
        ("gamma = { choices = [1, 0.5] }", CategoricalDistribution([1.0, 0.5])),
    ],
)
def test_a_domain_becomes_the_distribution_of_its_hyperparameters_type(
    tmp_path: Path, line: str, expected: optuna.distributions.BaseDistribution
) -> None:
    (found,) = load(tmp_path, line).searched.values()
    assert found == expected
    if isinstance(found, CategoricalDistribution):
        kind: Kind = KINDS[line.split()[0]]
        assert {type(choice) for choice in found.choices} == {kind.type}


@pytest.mark.parametrize(
    "line", ["batch_size = { low = 1, high = 10, step = 4 }", "gamma = { low = 0, high = 1, step = 0.3 }"]
)
def test_a_range_its_step_does_not_divide_ends_at_its_last_step_without_a_stray_warning(
    tmp_path: Path, line: str
) -> None:
    (domain,) = load(tmp_path, line).searched.values()
    assert isinstance(domain, FloatDistribution | IntDistribution)
    assert domain.high in (9, 0.9)


# Refusals


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("learning_rat = 0.1", ["unknown hyperparameter 'learning_rat'", "did you mean learning_rate?"]),
        ("zzz = 1", ["unknown hyperparameter 'zzz'", "known are learning_rate, ", "hidden_layers"]),
        ("gamma = { lo = 0, high = 1 }", ["gamma", "'lo'", "did you mean low?"]),
        ("gamma = { low = 0, high = 1, zzz = 1 }", ["gamma", "'zzz'", "known are low, high, log, step, choices"]),
        ("gamma = { low = 0 }", ["gamma", "'low': 0", "low, high, log, step"]),
        ("gamma = {}", ["gamma = {}", "choices"]),
        ("gamma = { low = 0.9, high = 0.8 }", ["gamma", "empty", "0.9", "0.8"]),
        ("batch_size = { low = 9, high = 8, log = true }", ["batch_size", "empty", "9", "8"]),
        ("gamma = { low = 0, high = 1, log = true }", ["gamma", "low = 0", "log = true"]),
        ("gamma = { low = 0.0, high = 1, log = true }", ["gamma", "low = 0", "log = true"]),
        ("warmup_steps = { low = 0, high = 9, log = true }", ["warmup_steps", "low = 0", "log = true"]),
        ("learning_rate = { low = -1, high = 1, log = true }", ["learning_rate = -1", "float in [1e-12, 1000]"]),
        ("gamma = { low = 0.1, high = 1, log = 1 }", ["gamma", "log = 1", "true or false"]),
        ("gamma = { low = 0.1, high = 1, log = true, step = 0.1 }", ["gamma", "log", "not together with step"]),
        ("gamma = { low = 0, high = 1, step = 0 }", ["gamma", "step = 0", "above 0"]),
        ("gamma = { low = 0, high = 1, step = -0.5 }", ["gamma", "step = -0.5", "above 0"]),
        ("gamma = { low = 0, high = 1, step = true }", ["gamma", "step = True", "a number"]),
        ("gamma = { low = 0, high = 1, step = 'x' }", ["gamma", "step = 'x'", "a number"]),
        ("gamma = { low = 0, high = 1, step = nan }", ["gamma", "step = nan", "a number"]),
        ("batch_size = { low = 1, high = 9, step = 0.5 }", ["batch_size", "step = 0.5", "whole number"]),
        ("batch_size = { low = 1.5, high = 9 }", ["batch_size = 1.5", "int in [1, 65536]"]),
        ("gamma = { choices = [] }", ["gamma", "choices"]),
        ("gamma = { choices = 0.5 }", ["gamma", "0.5", "list"]),
        ("gamma = { choices = [0.5], low = 0 }", ["gamma", "stands alone"]),
        ("gamma = { choices = [0.5, [0.6]] }", ["gamma = [0.6]", "float in [0, 1]"]),
        ("gamma = { choices = [0.5, 2] }", ["gamma = 2", "float in [0, 1]"]),
        ("gamma = { choices = [0.5, 0.9, 0.5] }", ["gamma", "twice", "[0.5, 0.9, 0.5]"]),
        ("gamma = { choices = [1, 1.0] }", ["gamma", "twice"]),
        ("double_q = { choices = [true, true] }", ["double_q", "twice"]),
        ("double_q = { choices = [true, 0] }", ["double_q = 0", "true or false"]),
        ("double_q = { low = false, high = true }", ["double_q", "choices"]),
        ("double_q = 1", ["double_q = 1", "true or false"]),
        ("batch_size = true", ["batch_size = True", "int in [1, 65536]"]),
        ("gamma = true", ["gamma = True", "float in [0, 1]"]),
        ("gamma = { low = false, high = 1 }", ["gamma = False", "float in [0, 1]"]),
        ("gamma = 'high'", ["gamma = 'high'", "float in [0, 1]"]),
        ("gamma = [0.5]", ["gamma = [0.5]", "float in [0, 1]"]),
        ("gamma = 2024-01-01", ["gamma = ", "2024", "float in [0, 1]"]),
        ("gamma = nan", ["gamma = nan", "float in [0, 1]"]),
        ("gamma = -inf", ["gamma = -inf", "float in [0, 1]"]),
        ("max_grad_norm = inf", ["max_grad_norm = inf", "float in [1e-06, 1e+06]"]),
        ("max_grad_norm = { low = 1, high = inf }", ["max_grad_norm = inf", "float in [1e-06, 1e+06]"]),
        ("batch_size = 0", ["batch_size = 0", "int in [1, 65536]"]),
        ("batch_size = 65_537", ["batch_size = 65537", "int in [1, 65536]"]),
        ("batch_size = 32.5", ["batch_size = 32.5", "int in [1, 65536]"]),
        ("batch_size = 128\nbuffer_size = 100", ["batch_size 128", "replay capacity", "buffer_size", "100"]),
        ("batch_size = 60_000", ["batch_size 60000", "buffer_size", "50000"]),
        (
            "batch_size = { choices = [8, 512] }\nbuffer_size = { low = 500, high = 600 }",
            ["batch_size 512", "buffer_size", "500"],
        ),
    ],
)
def test_a_hyperparameter_that_is_not_allowed_is_refused_with_what_is(
    tmp_path: Path, line: str, words: list[str]
) -> None:
    assert_says(refusal(written(tmp_path, line)), words)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("", ["no budget", "episodes", "env_steps"]),
        ("episode = 1", ["unknown key 'episode'", "did you mean episodes?"]),
        ("episodes = 1\nzzz = 1", ["unknown key 'zzz'", "known are env, episodes, "]),
        ("episodes = 1\nname = 'x'", ["unknown key 'name'"]),
        ("episodes = 1\nsearched = {}", ["unknown key 'searched'"]),
        ("episodes = 1\ngamma = 0.5", ["gamma is a hyperparameter", "[hyperparameters]"]),
        ("episodes = 0", ["episodes = 0", "int in [1, 1073741824]"]),
        ("episodes = -3", ["episodes = -3", "int in [1, "]),
        ("episodes = 1.0", ["episodes = 1.0", "int in [1, "]),
        ("episodes = true", ["episodes = True", "int in [1, "]),
        ("episodes = 'many'", ["episodes = 'many'", "int in [1, "]),
        ("episodes = inf", ["episodes = inf", "int in [1, "]),
        ("env_steps = 0", ["env_steps = 0", "int in [1, 1073741824]"]),
        ("env_steps = 1_073_741_825", ["env_steps = 1073741825", "int in [1, 1073741824]"]),
        ("episodes = 1\neval_episodes = 0", ["eval_episodes = 0", "int in [1, 100000]"]),
        ("episodes = 1\nvalidation_episodes = -1", ["validation_episodes = -1", "int in [1, 100000]"]),
        ("episodes = 1\nkeep_best = 1", ["keep_best = 1", "true or false"]),
        ("episodes = 1\nkeep_best = true", ["keep_best = true needs rungs"]),
        ("episodes = 1\nstop_when_perfect = true", ["stop_when_perfect = true needs rungs"]),
        ("env_steps = 9\nrungs = 10\nkeep_best = true", ["keep_best = true needs rungs", "within the budget"]),
        ("env_steps = 9\nrungs = 0", ["rungs = 0", "environment steps"]),
        ("env_steps = 9\nrungs = [3, -3]", ["rungs = [3, -3]", "environment steps"]),
        ("env_steps = 9\nrungs = 1.5", ["rungs = 1.5", "environment steps"]),
        ("env_steps = 9\nrungs = true", ["rungs = True", "environment steps"]),
        ("env_steps = 9\nrungs = 'all'", ["rungs = 'all'", "environment steps"]),
        ("episodes = 1\nenv = 1", ["env = 1", "name"]),
        ("episodes = 1\nenv = 'CartPole-v9'", ["'CartPole-v9'", "did you mean CartPole-v1?"]),
        ("episodes = 1\nenv = 'zzz'", ["'zzz'", "known are ", "CartPole-v1"]),
        ("episodes = 1\nenv = ''", ["''", "known are ", "CartPole-v1"]),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused_with_what_is(tmp_path: Path, head: str, words: list[str]) -> None:
    assert_says(refusal(written(tmp_path, head=head)), words)


def test_a_long_value_is_quoted_in_part_and_what_is_allowed_in_full(tmp_path: Path) -> None:
    said = refusal(written(tmp_path, f"gamma = {{ choices = {['x' * 9] * 9_000} }}"))
    assert_says(said, ["gamma = 'xxxxxxxxx' is not allowed: float in [0, 1]"])
    said = refusal(written(tmp_path, f"gamma = {[0] * 9_000}"))
    assert len(said) < 600
    assert_says(said, ["gamma = [0, 0", "…", "is not allowed: float in [0, 1]"])


def test_a_file_whose_name_can_not_be_shown_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x\udc80.toml"
    path.write_text("episodes = 1")
    with pytest.raises(ValueError, match="is not printable"):
        space.load(str(path))


@pytest.mark.parametrize(
    "name", ["MountainCarContinuous-v0", "Pendulum-v1", "PointRobot-misc", "Reacher-misc", "Swimmer-misc"]
)
def test_an_environment_with_continuous_actions_is_refused(name: str) -> None:
    assert_says(refusal("default", env=name), [name, "Discrete"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("episodes = ", ["is no TOML", "Invalid value"]),
        ("{}", ["is no TOML", "line 1"]),
        ("episodes = 1\nepisodes = 2", ["is no TOML", "overwrite"]),
        ("hyperparameters = 3", ["hyperparameters = 3", "table"]),
        ("hyperparameters = []", ["hyperparameters = []", "table"]),
        ("[[hyperparameters]]", ["hyperparameters = [{}]", "table"]),
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "other.toml"
    path.write_text(text, "utf-8")
    assert_says(refusal(str(path)), words)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"[hyperparameters]\ngamma = {HUGE}", id="a float"),
        pytest.param(f"[hyperparameters]\nbatch_size = {HUGE}", id="an int"),
        pytest.param(f"[hyperparameters]\nbatch_size = {{ low = 1, high = {HUGE} }}", id="a bound"),
        pytest.param(f"[hyperparameters]\nbatch_size = {{ choices = [1, {HUGE}] }}", id="a choice"),
        pytest.param(f"[hyperparameters]\ngamma = {{ low = 0, high = 1, step = {HUGE} }}", id="a step of a float"),
        pytest.param("[hyperparameters]\ngamma = { low = 0, high = 1, step = inf }", id="an infinite step of a float"),
        pytest.param(
            "[hyperparameters]\ntau = { low = 0.1, high = 1, step = 1e-99 }", id="a step too fine for a float"
        ),
        pytest.param("[hyperparameters]\nbatch_size = { low = 1, high = 9, step = inf }", id="an infinite step"),
        pytest.param(f"episodes = {HUGE}", id="a budget"),
        pytest.param(f"solved_return = {HUGE}", id="a return"),
        pytest.param(f"solved_return = 0x{'f' * 5000}", id="a number that Python does not write"),
        pytest.param(f"episodes = 1{'0' * 5000}", id="more digits than Python reads"),
        pytest.param(f"x = {'[' * 5000}{']' * 5000}", id="nested lists"),
        pytest.param(f"x = {'{a=' * 5000}1{'}' * 5000}", id="nested tables"),
    ],
)
def test_a_value_beyond_what_numbers_and_parsers_hold_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "huge.toml"
    path.write_text(text if text.startswith("episodes") else f"env_steps = 9\n{text}", "utf-8")
    refusal(str(path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("artikel", ["'artikel'", "did you mean article?", "article, default"]),
        ("defualt", ["'defualt'", "did you mean default?", "article, default"]),
        ("zzz", ["'zzz'", "neither a file nor a preset", "article, default"]),
        ("no/such/file.toml", ["'no/such/file.toml'", "neither a file nor a preset", "article, default"]),
        (".", ["'.'", "can't be read"]),
        ("", ["''", "can't be read"]),
        ("x" * 5_000, ["xxx", "can't be read"]),
    ],
)
def test_a_name_that_is_neither_preset_nor_file_is_refused(name: str, words: list[str]) -> None:
    assert_says(refusal(name), words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", ["can't be read"]),
        (b"#" * (space.MAX_FILE_BYTES + 1), ["larger than", f"{space.MAX_FILE_BYTES:,}"]),
    ],
    ids=["no UTF-8", "too large"],
)
def test_a_file_that_can_not_be_a_space_is_refused(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "odd.toml"
    path.write_bytes(content)
    assert_says(refusal(str(path)), words)


# Hyperparameters


@pytest.mark.parametrize("name", Hyperparams._fields)
def test_every_default_is_of_its_kind_and_both_bounds_are_allowed(name: str) -> None:
    kind: Kind = KINDS[name]
    for value in (kind.default, kind.type(kind.low), kind.type(kind.high)):
        checked = check_value(name, value)
        assert (type(checked), checked) == (kind.type, value)


@pytest.mark.parametrize("name", [name for name in Hyperparams._fields if KINDS[name].type is not bool])
def test_just_outside_its_bounds_a_value_is_refused(name: str) -> None:
    kind: Kind = KINDS[name]
    beside = (kind.low - 1, kind.high + 1) if kind.type is int else (math.nextafter(kind.low, -1), kind.high * 1.001)
    for value in beside:
        with pytest.raises(ValueError, match=f"^{name} = .* is not allowed: {kind.type.__name__} in "):
            check_value(name, value)


def test_stacked_agents_keep_their_values_and_types() -> None:
    rows = [defaults(), defaults()._replace(gamma=0.5, batch_size=7, double_q=True)]
    stacked = stack(rows)
    assert [field.shape for field in stacked] == [(2,)] * len(Hyperparams._fields)
    assert [str(field.dtype) for field in stacked] == [
        {float: "float32", int: "int32", bool: "bool"}[kind.type] for kind in KINDS.values()
    ]
    assert (stacked.gamma[1], stacked.batch_size[1], stacked.double_q[1]) == (0.5, 7, True)


def test_the_identity_of_a_space_forgets_its_name_and_nothing_else(tmp_path: Path) -> None:
    one = load(tmp_path, "gamma = { low = 0, high = 1 }")
    assert one.identity() == space.replace(one, name="other").identity()
    others = [
        load(tmp_path, "gamma = { low = 0, high = 0.5 }"),
        load(tmp_path, "gamma = { low = 0, high = 1 }\ntau = 0.5"),
        load(tmp_path, "gamma = { low = 0, high = 1 }", "episodes = 201"),
        load(tmp_path, "gamma = { low = 0, high = 1 }", "episodes = 200\nrungs = 1_000"),
    ]
    assert all(one.identity() != other.identity() for other in others)


# Any space

MOST = Hyperparams(*(kind.high for kind in KINDS.values()))._replace(batch_size=4_096)
LEAST = Hyperparams(*(kind.low for kind in KINDS.values()))._replace(buffer_size=4_096)  # so that every batch fits


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml(item)}' for key, item in value.items())} }}"
    return repr(value)


def values(name: str) -> st.SearchStrategy[Any]:
    kind: Kind = KINDS[name]
    low, high = getattr(LEAST, name), getattr(MOST, name)
    if kind.type is bool:
        return st.booleans()
    return st.integers(low, high) if kind.type is int else st.floats(low, high)


@st.composite
def ranges(draw: st.DrawFn, name: str) -> dict[str, Any]:
    low, high = sorted((draw(values(name)), draw(values(name))))
    return {"low": low, "high": high, **({"log": draw(st.booleans())} if low > 0 else {})}


@st.composite
def stepped_ranges(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """A range its step divides; that of a float lies on hundredths."""
    scale = 1 if KINDS[name].type is int else 100
    first, last = math.ceil(getattr(LEAST, name) * scale), math.floor(getattr(MOST, name) * scale)
    low = draw(st.integers(first, last))
    step = draw(st.integers(1, max(1, last - low)))
    high = low + step * draw(st.integers(0, (last - low) // step))
    return {key: n if scale == 1 else n / scale for key, n in (("low", low), ("high", high), ("step", step))}


def choices(name: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"choices": st.lists(values(name), min_size=1, max_size=10, unique=True)})


def domains(name: str) -> st.SearchStrategy[Any]:
    if KINDS[name].type is bool:
        return values(name) | choices(name)
    return values(name) | choices(name) | ranges(name) | stepped_ranges(name)


HYPERPARAMETERS = st.fixed_dictionaries({}, optional={name: domains(name) for name in Hyperparams._fields})
SETTINGS = st.fixed_dictionaries(
    {"env_steps": st.integers(1, 10**6)},
    optional={
        "episodes": st.integers(1, 10**5),
        "eval_episodes": st.integers(1, 1_000),
        "validation_episodes": st.integers(1, 1_000),
        "rungs": st.lists(st.integers(1, 10**6), max_size=5) | st.integers(1_000, 10**6),
    },
)


def text_of(head: dict[str, Any], hyperparameters: dict[str, Any]) -> str:
    lines = [f"{key} = {toml(value)}" for key, value in head.items()]
    return "\n".join(
        [*lines, "[hyperparameters]", *(f"{key} = {toml(value)}" for key, value in hyperparameters.items())]
    )


def contains(domain: optuna.distributions.BaseDistribution, value: Any) -> bool:
    return domain._contains(domain.to_internal_repr(value))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return tmp_path_factory.mktemp("spaces")


@settings(max_examples=60, deadline=None)
@given(SETTINGS, HYPERPARAMETERS, st.integers(0, 2**31 - 1))
def test_what_is_sampled_from_a_valid_space_has_the_right_types_and_lies_in_bounds(
    folder: Path, head: dict[str, Any], hyperparameters: dict[str, Any], seed: int
) -> None:
    path = folder / "valid.toml"
    path.write_text(text_of(head, hyperparameters), "utf-8")
    loaded = space.load(str(path))
    assert set(loaded.searched) == {name for name, domain in hyperparameters.items() if isinstance(domain, dict)}
    assert loaded.fixed == {name: value for name, value in hyperparameters.items() if not isinstance(value, dict)}

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    for _ in range(3):
        params = study.ask(fixed_distributions=loaded.searched).params
        hyperparams = loaded.hyperparams(params)
        for value, kind in zip(hyperparams, KINDS.values(), strict=True):
            assert type(value) is kind.type
            assert kind.low <= value <= kind.high
        for name, domain in loaded.searched.items():
            assert contains(domain, getattr(hyperparams, name))
            assert getattr(hyperparams, name) == params[name]


@settings(max_examples=60, deadline=None)
@given(SETTINGS, HYPERPARAMETERS)
def test_the_config_of_a_valid_space_serves_every_agent_in_it(
    folder: Path, head: dict[str, Any], hyperparameters: dict[str, Any]
) -> None:
    path = folder / "valid.toml"
    path.write_text(text_of(head, {**hyperparameters, "normalize_obs": False}), "utf-8")  # else an episode is run
    loaded = space.load(str(path))
    config = space_config.of(loaded)

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    agents = [loaded.hyperparams(study.ask(fixed_distributions=loaded.searched).params) for _ in range(3)]
    assert dict(config.fixed).keys() == set(Hyperparams._fields) - set(loaded.searched)
    assert all(rung % config.tick == 0 and rung <= config.env_steps for rung in config.rungs)
    assert list(config.batch_sizes) == sorted(set(config.batch_sizes))
    assert len(config.batch_sizes) <= 17
    for agent in agents:
        assert agent == config.specialise(agent)
        assert agent.train_period % config.tick == 0
        assert config.slots >= min(agent.buffer_size, config.env_steps)
        assert config.batch_sizes[bucket_of(agent.batch_size, config)] >= agent.batch_size
        assert config.hidden_width >= agent.hidden_width
        assert config.hidden_layers >= agent.hidden_layers
        assert config.linear or agent.hidden_layers > 0


# Anything


def loads_or_is_refused(folder: Path, content: bytes) -> None:
    path = folder / "anything.toml"
    path.write_bytes(content)
    try:
        loaded = space.load(str(path))
    except ValueError as error:
        assert "anything" in str(error)  # noqa: PT017
    else:
        assert isinstance(loaded, Space)


@settings(max_examples=100, deadline=None)
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_as_a_space_file_load_or_are_refused(folder: Path, content: bytes) -> None:
    loads_or_is_refused(folder, content)


NUMBERS = st.sampled_from(
    [0, 1, 2, 64, 5_000, -1, 2**31, 10**30, 10**400, 0.0, 0.3, 0.9, 32.0, -0.5, 1e-300, 1e-9, 1e300, math.inf, math.nan]
)
SCALARS = NUMBERS | st.booleans() | st.sampled_from(["", "x", "CartPole-v1", "Pendulum-v1"])
VALUES = SCALARS | st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=3)
RANGES = st.fixed_dictionaries({"low": NUMBERS, "high": NUMBERS}, optional={"step": NUMBERS, "log": st.booleans()})
TABLES = st.dictionaries(st.sampled_from(["low", "high", "log", "step", "choices", "x"]), VALUES, max_size=3)


@settings(max_examples=300, deadline=None)
@given(
    st.just({}) | st.dictionaries(st.sampled_from([*Space.__dataclass_fields__, "x"]), VALUES, max_size=3),
    st.dictionaries(st.sampled_from([*Hyperparams._fields, "x"]), VALUES | RANGES | TABLES, max_size=2),
)
def test_any_values_in_a_space_file_load_or_are_refused(
    folder: Path, head: dict[str, Any], hyperparameters: dict[str, Any]
) -> None:
    loads_or_is_refused(folder, text_of({"episodes": 5} | head, hyperparameters).encode())


@given(st.sampled_from(Hyperparams._fields), st.data())
def test_a_misspelt_hyperparameter_is_refused_with_the_nearest_name(
    folder: Path, name: str, data: st.DataObject
) -> None:
    dropped = data.draw(st.integers(0, len(name) - 1))
    misspelt = name[:dropped] + name[dropped + 1 :]
    if misspelt in Hyperparams._fields or len(name) < 5:
        return
    (nearest,) = difflib.get_close_matches(misspelt, Hyperparams._fields, 1, 0.5)
    assert_says(refusal(written(folder, f"{misspelt} = 1")), [repr(misspelt), f"did you mean {nearest}?"])


def test_the_order_of_a_file_decides_nothing(tmp_path: Path) -> None:
    lines = ["gamma = { low = 0.9, high = 0.99 }", "learning_rate = { low = 1e-4, high = 1e-2, log = true }"]
    spaces = []
    for i, order in enumerate((lines, lines[::-1])):
        file = tmp_path / f"{i}.toml"
        file.write_text("env_steps = 1_000\n[hyperparameters]\n" + "\n".join(order))
        spaces.append(space.load(str(file)))
    assert list(spaces[0].searched) == list(spaces[1].searched)
