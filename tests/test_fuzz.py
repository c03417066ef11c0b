"""Whatever is typed or lies in a file: a result, or one line that says what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdqn import (
    environment,
    figures,
    history,
    journal,
    plan,
    report,
    reporting,
    retrain,
    saved_agent,
    space,
    space_config,
    statistics,
)
from jaxdqn.plan import Plan, Settings
from jaxdqn.space import Space
from tests.agents import drawn
from tests.hostile import FLOATS, INTS, PRESETS, QUICK, TEXTS, assert_plain, document, spoilt
from tests.small_sweep import swept

KINDS = {"Path": TEXTS.map(Path), "str": TEXTS, "bool": st.booleans(), "int": INTS, "float": FLOATS}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        environment, "random_policy", lambda key, env: environment.RandomPolicy((0.0,), (1.0,), 20.0)
    )  # takes seconds
    monkeypatch.setattr(statistics, "NUM_RESAMPLES", 49)
    monkeypatch.setattr(report, "pictures", lambda *_: {})
    monkeypatch.setattr(figures, "plotly_js", lambda: "")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tried(work: Callable[[], Any]) -> Any:
    """What it returns; None if it refuses, in one line."""
    try:
        return work()
    except ValueError as error:
        assert_plain(error)
        return None


def kind(annotation: str) -> st.SearchStrategy[Any]:
    return next(strategy for name, strategy in KINDS.items() if name in annotation)


@QUICK
@given(st.fixed_dictionaries({}, optional={name: kind(str(x)) for name, x in get_type_hints(Settings).items()}))
def test_any_settings_make_a_plan_or_are_refused(directory: Path, given_: dict[str, Any]) -> None:
    assert isinstance(tried(lambda: plan.plan(Settings(**given_))), Plan | None)


FIELDS = list(get_type_hints(Settings).items())


@QUICK
@given(st.sampled_from(FIELDS).flatmap(lambda field: st.tuples(st.just(field[0]), kind(str(field[1])))))
def test_any_value_of_one_setting_makes_a_plan_or_is_refused(directory: Path, given_: tuple[str, Any]) -> None:
    assert isinstance(tried(lambda: plan.plan(Settings(**dict([given_])))), Plan | None)


def load(content: bytes, loader: Callable[[str], Space]) -> None:
    path = Path("mine.toml")
    path.write_bytes(content)
    loaded = tried(lambda: loader(str(path)))
    if loaded is not None:
        tried(lambda: json.dumps(loaded.identity()))
        space_config.of(loaded)


@QUICK
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_space_or_refused(directory: Path, content: bytes) -> None:
    load(content, space.load)


@settings(QUICK, max_examples=200)
@given(spoilt(PRESETS))
def test_a_spoilt_space_loads_or_is_refused(directory: Path, content: dict[str, Any]) -> None:
    load(document(content), space.load)


FIXED = [{"env_steps": 1_000, "eval_episodes": 5, "hyperparameters": {"gamma": 0.9, "hidden_layers": 0}}]


@QUICK
@given(spoilt(FIXED))
def test_spoilt_hyperparameters_load_or_are_refused(directory: Path, content: dict[str, Any]) -> None:
    load(document(content), retrain.from_file)


# Agents


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_agent.save(tmp_path_factory.mktemp("agents") / "agent", drawn(4, 1, normalises=True))


def rewritten(about: Path, directory: Path, description: dict[str, Any], weights: bytes) -> Path:
    """A copy of an agent with another description and other weights."""
    (directory / "agent.safetensors").write_bytes(weights)
    (directory / about.name).write_text(json.dumps(description))
    return directory / about.name


def described(about: Path) -> dict[str, Any]:
    description: dict[str, Any] = json.loads(about.read_text())
    return description


def plays_or_is_refused(about: Path) -> None:
    loaded = tried(lambda: saved_agent.load(about))
    if loaded is not None:
        assert np.isfinite(loaded.mean_return) or loaded.mean_return == -np.inf
        saved_agent.config_of(loaded)
        json.dumps([loaded.key, loaded.scores, loaded.sizes], allow_nan=False)


@QUICK
@given(data=st.data())
def test_an_agent_with_spoilt_bytes_is_refused_or_is_the_same(
    agent: Path, directory: Path, data: st.DataObject
) -> None:
    for suffix in (".json", ".safetensors"):
        content = bytearray(agent.with_suffix(suffix).read_bytes())
        if data.draw(st.booleans()):
            place = data.draw(st.integers(0, len(content) - 1))
            content[place:] = data.draw(
                st.sampled_from([b"", bytes([content[place] ^ 1]) + content[place + 1 :], b"\0" * 99])
            )
        (directory / f"agent{suffix}").write_bytes(content)
    plays_or_is_refused(directory / "agent.json")


@settings(QUICK, max_examples=200)
@given(data=st.data())
def test_an_agent_with_a_spoilt_description_plays_or_is_refused(
    agent: Path, directory: Path, data: st.DataObject
) -> None:
    description = data.draw(spoilt([described(agent)]))
    plays_or_is_refused(rewritten(agent, directory, description, agent.with_suffix(".safetensors").read_bytes()))


@QUICK
@given(data=st.data())
def test_an_agent_with_spoilt_weights_of_the_right_hash_plays_or_is_refused(
    agent: Path, directory: Path, data: st.DataObject
) -> None:
    content = agent.with_suffix(".safetensors").read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(data.draw(spoilt([json.loads(content[8:end])]))).encode()
    size = data.draw(st.just(len(header)) | st.integers(0, 2**64 - 1))
    weights = size.to_bytes(8, "little") + header + content[end:][: data.draw(st.integers(0, 400))]
    description = described(agent)
    description["weights"]["sha256"] = hashlib.sha256(weights).hexdigest()
    plays_or_is_refused(rewritten(agent, directory, description, weights))


# Logs


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("swept")
    swept(directory)
    return (directory / "study.log").read_bytes()


def is_reported_or_refused(content: bytes, directory: Path) -> None:
    (directory / "study.log").write_bytes(content)

    def report() -> None:
        found = history.read(directory)
        reporting.report_on(found, directory)

    tried(report)


@QUICK
@given(data=st.data())
def test_a_log_with_spoilt_bytes_is_read_up_to_there_or_refused(
    log: bytes, directory: Path, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(log)))
    content = log[:place] + data.draw(st.binary(max_size=30)) + log[place + data.draw(st.integers(0, 30)) :]
    (directory / "study.log").write_bytes(content)
    found = tried(lambda: history.read(directory))
    if found is not None:
        history.fresh_seeds(found)


@QUICK
@given(data=st.data())
def test_a_log_of_other_records_is_reported_or_refused(log: bytes, directory: Path, data: st.DataObject) -> None:
    records = [json.loads(line) for line in log.splitlines()]
    if data.draw(st.booleans()):
        about = records[1]["user_attr"]
        identity = json.loads(about["jaxdqn_identity"])
        about["jaxdqn_identity"] = json.dumps(data.draw(spoilt([identity])))
    else:
        records = data.draw(spoilt([records], keys=st.sampled_from(sorted(set().union(*records)))))
    is_reported_or_refused(b"".join(map(sealed, records)), directory)


def sealed(record: Any) -> bytes:
    """A record as a line with a checksum."""
    content = {key: value for key, value in record.items() if key != "crc"} if isinstance(record, dict) else record
    return journal._seal(json.dumps(content, separators=(",", ":")).encode())


# Commands

SCRIPTS = Path(__file__).parent.parent / "scripts"
HOSTILE: dict[str, tuple[str, ...]] = {
    "a study's name of 100,000 characters": ("sweep.py", "--study", "x:" * 50_000),
    "a space whose name is no text": ("sweep.py", "--space", "x\udc80.toml"),
    "a space of deep tables": ("sweep.py", "--space", "deep.toml"),
    "a number without a limit": ("sweep.py", "--seed", "9" * 5_000),
    "a directory that can not be": ("sweep.py", "--output", "x" * 300),
    "a tracking address that is none": ("sweep.py", "--tracking", "http://[::1"),
    "hyperparameters of odd types": ("train.py", "--hyperparameters", "odd.toml"),
    "an agent that is garbage": ("evaluate.py", "--agent", "garbage.json"),
    "a log that is garbage": ("report.py", "--output", "garbage"),
    "a table that is garbage": ("compare_samplers.py", "--from", "garbage.json"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_process_refuses_what_is_hostile_in_one_line(directory: Path, name: str) -> None:
    (directory / "x\udc80.toml").write_text("episodes = 3")
    (directory / "deep.toml").write_text("x = " + "{a = " * 5_000)
    (directory / "odd.toml").write_text("episodes = 3\n[hyperparameters]\ngamma = [[], {}]")
    (directory / "garbage").mkdir()
    for path in ("garbage.json", "garbage/study.log"):
        (directory / path).write_bytes(bytes(range(256)) * 40)
    before = sorted(directory.rglob("*"))
    script, *arguments = HOSTILE[name]
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    environment_ = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}
    ended = subprocess.run(command, cwd=directory, env=environment_, capture_output=True, timeout=120, check=False)
    said = ended.stderr.decode()
    assert (ended.returncode, ended.stdout) == (2, b""), said
    assert re.fullmatch(r"error: [^\n]+\n", said), said
    assert len(said) < 5_000
    assert sorted(directory.rglob("*")) == before
