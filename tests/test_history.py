"""What a log tells those who only read it."""

from dataclasses import replace
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution

from jaxdqn import environment, history, journal, space, space_config, statistics
from jaxdqn.history import fresh_seeds, read
from jaxdqn.space import Space
from jaxdqn.study import Study, open_study
from tests.small_sweep import GOOD, LUCKY, TRIALS, Sweep, swept

MANY = """
env = "Acrobot-v1"
episodes = 30
env_steps = 9_000
eval_episodes = 7
rungs = [300, 600, 900]
validation_episodes = 3
keep_best = true
solved_return = -100
seeds = 3
[hyperparameters]
learning_rate = { low = 1e-5, high = 1e-1, log = true }
gamma = { low = 0.9, high = 0.99, step = 0.01 }
batch_size = { choices = [16, 64] }
warmup_steps = { low = 0, high = 500, step = 100 }
target_period = { low = 1, high = 1000, log = true }
double_q = { choices = [true, false] }
normalize_obs = false
hidden_layers = { low = 0, high = 2 }
epsilon_end = 0
"""
SMALL = """
env_steps = 1_000
minimize = "num_parameters"
[hyperparameters]
hidden_width = { low = 2, high = 16 }
"""
FIXED = "episodes = 3\n[hyperparameters]\ngamma = 0.5\n"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of fewer resamples."""
    monkeypatch.setattr(statistics, "NUM_RESAMPLES", 199)


def described(searched: Space) -> dict[str, object]:
    return {"space": searched.name, "solved_return": searched.solved_return}


def opened(directory: Path, searched: Space) -> Study:
    identity = {**searched.identity(), "seed": 7, "objective": "mean_return"}
    return open_study(directory / "study.log", "s", searched, identity, "random", 7)


def test_a_log_is_read_beside_its_writer_up_to_the_last_commit(tmp_path: Path) -> None:
    searched = space.load("default")
    study, log = opened(tmp_path, searched), tmp_path / "study.log"
    study.tell(study.ask(1)[0].number, 5.0, {"returns": [5.0]})
    study.report(study.ask(1)[0].number, searched.rungs[0], 3.0)
    study.commit()
    study.tell(1, 9.0, {})  # and not committed
    before = log.read_bytes()
    files = sorted(tmp_path.iterdir())
    found = read(tmp_path)
    assert (found.study_name, found.seed) == ("s", 7)
    assert [(trial.state, trial.value) for trial in found.trials] == [("complete", 5.0), ("running", None)]
    assert found.trials[0] == study.trial(0)
    assert found.trials[1].intermediate == {searched.rungs[0]: 3.0}
    assert log.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == files
    study.commit()  # the writer goes on as if nobody had read
    assert [trial.value for trial in read(tmp_path).trials] == [5.0, 9.0]
    study.close()
    assert read(tmp_path).trials == study.trials()


def test_a_torn_tail_is_left_out_and_left_alone(tmp_path: Path) -> None:
    study, log = opened(tmp_path, space.load("default")), tmp_path / "study.log"
    for value in (1.0, 2.0):
        study.tell(study.ask(1)[0].number, value, {})
        study.commit()
    study.close()
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    for torn in (whole[:-9], whole + b'{"synced":12,"cl', whole + b"\0" * 300, whole + lines[-1][:-1]):
        log.write_bytes(torn)
        values = [trial.value for trial in read(tmp_path).trials]
        assert values == ([1.0, 2.0] if torn.startswith(whole) else [1.0])
        assert log.read_bytes() == torn


def in_the_way(directory: Path, what: str) -> Path:
    log = directory / "study.log"
    if what == "an empty log":
        log.touch()
    elif what == "somebody's notes":
        log.write_bytes(b"notes\n" * 100)
    elif what == "a directory":
        log.mkdir()
    elif what == "a beginning":
        opened(directory, space.load("default")).close()
        log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:1]))
    return directory / "missing" if what == "no directory" else directory


@pytest.mark.parametrize(
    "what", ["no directory", "no log", "an empty log", "somebody's notes", "a directory", "a beginning"]
)
def test_where_there_is_no_log_to_be_read_one_line_says_so(tmp_path: Path, what: str) -> None:
    directory = in_the_way(tmp_path, what)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"study\.log") as refused:
        read(directory)
    assert "\n" not in str(refused.value)
    assert str(directory) in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", [*space.presets(), "many", "small", "fixed"])
def test_the_space_that_is_read_back_is_the_space_of_the_sweep(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = environment.RandomPolicy((0.0,), (1.0,), 20.0)
    monkeypatch.setattr(environment, "random_policy", lambda key, env: known)  # takes seconds
    if name not in space.presets():
        (tmp_path / f"{name}.toml").write_text({"many": MANY, "small": SMALL, "fixed": FIXED}[name])
    searched = space.load(name if name in space.presets() else str(tmp_path / f"{name}.toml"))
    study = opened(tmp_path, searched)
    study.describe(described(searched))
    asked = study.ask(4)
    study.close()
    found = read(tmp_path).space
    assert found.identity() == searched.identity()
    assert list(found.searched.items()) == list(searched.searched.items())
    assert replace(found, fixed={}) == replace(searched, fixed={})
    assert space_config.of(found) == space_config.of(searched)
    assert space_config.common_period(found) == space_config.common_period(searched)
    assert found.solved == searched.solved
    for one in asked:
        its = found.hyperparams(one.params)
        assert its == searched.hyperparams(one.params)
        assert [type(x) for x in its] == [type(x) for x in searched.hyperparams(one.params)]


def test_a_space_with_one_choice_is_read_back(tmp_path: Path) -> None:
    searched = replace(space.load("default"), searched={"gamma": CategoricalDistribution([0.9])})
    opened(tmp_path, searched).close()
    assert read(tmp_path).space.searched == searched.searched


def test_what_fresh_seeds_say_is_read_as_the_sweep_said_it(tmp_path: Path) -> None:
    result = swept(tmp_path)
    confirmed, verdict = fresh_seeds(read(tmp_path))
    assert result.verdict is not None
    assert [one.number for one in confirmed] == [GOOD, LUCKY]
    assert [one.summary() for one in confirmed] == [as_read(one.summary()) for one in result.confirmed]
    assert verdict is not None
    assert verdict.summary() == as_read(result.verdict.summary())
    found = read(tmp_path)
    assert found.description["confirm_top"] == 2
    assert found.space.name == "one"
    assert len(found.trials) == TRIALS


def as_read(summary: dict[str, object]) -> dict[str, object]:
    """A summary whose spans are lists, as JSON has it."""
    spans = summary["lanes"]
    assert isinstance(spans, list)
    return {**summary, "lanes": [list(span) for span in spans]}


def test_fresh_seeds_that_are_not_all_there_say_nothing(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    sweep.study.describe({"confirm_top": 2, "confirm_seeds": 5, "verdict_seeds": 4})
    sweep.run(until=lambda event: 0 < event.done < event.total)
    assert len(read(tmp_path).recorded("confirm")) > 0  # of a process that still holds the log
    assert fresh_seeds(read(tmp_path)) == ([], None)


def test_a_sweep_without_a_description_has_no_fresh_seeds(tmp_path: Path) -> None:
    opened(tmp_path, space.load("default")).close()
    assert history.fresh_seeds(read(tmp_path)) == ([], None)
    assert read(tmp_path).space.name == "space"


def resealed(log: bytes, old: str, new: str) -> bytes:
    """A log with other content and the right checksums."""
    records = [line[:-18] + b"}" for line in log.splitlines()]
    assert any(old.encode() in record for record in records)
    return b"".join(journal._seal(record.replace(old.encode(), new.encode())) for record in records)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('"state":1', '"state":9', "9"),
        ('"returns":[50.0]', '"returns":["x"]', "returns"),
        ('"env_steps":[20000]', '"env_steps":{}', "env_steps"),
        ('"env_steps":20000', '"env_steps":null', "env_steps"),
        ('"mean_return":100.0', '"mean_return":[]', "mean_return"),
        ('"updates":5000,', "", "updates"),
        ('"values":[50.0]', '"values":["x"]', "value"),
        ('"confirm_seeds":5', f'"confirm_seeds":{10**9}', "confirm_seeds"),
        ('"commands":[""]', '"commands":3', "commands"),
        ("CartPole-v1\\", "Pendulum-v1\\", "Discrete"),
        ('\\"gamma\\": 0.99', '\\"gamma\\": 9', "gamma"),
        ('\\"low\\": 1e-05', '\\"low\\": -1', "low"),
        ('"clock":0', '"clock":' + "[" * 20_000 + "]" * 20_000, "no sweep|it holds 0 studies"),
    ],
)
def test_a_log_of_whole_records_that_no_sweep_writes_is_refused(tmp_path: Path, old: str, new: str, word: str) -> None:
    swept(tmp_path)
    log = tmp_path / "study.log"
    log.write_bytes(resealed(log.read_bytes(), old, new))
    with pytest.raises(ValueError, match=word) as refused:
        read(tmp_path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 900
