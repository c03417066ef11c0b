"""Passwords in URLs reach those who need them, and nothing that people or files get to see."""

from __future__ import annotations

import base64
import importlib.util
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image

from jaxdqn import devices, journal, run, statistics
from jaxdqn.command_line import shell_word, without_passwords
from jaxdqn.redact import hide_password
from tests.hostile import QUICK
from tests.small_sweep import loaded, score
from tests.stand_in import StandIn

SCRIPT = Path(__file__).parent.parent / "scripts" / "sweep.py"
PARTS = ("s3cret", "w0rd")  # each of them is looked for
PASSWORDS = {
    "plain": "s3cretw0rd",
    "with an @": "s3cret@w0rd",
    "beginning with an @": "@s3cretw0rd",
    "with a slash": "s3cret/w0rd",
    "beginning with a slash": "/s3cretw0rd",
    "with a percent sign": "s3cret%w0rd",
    "with a colon": "s3cret:w0rd",
    "with a question mark": "s3cret?w0rd",
    "with a hash": "s3cret#w0rd",
    "with a space": "s3cret  w0rd",
    "with a line's end": "s3cret\nw0rd",
    "with quotes": "s3cret'\"w0rd",
    "not of ASCII": "s3créts3cretw0rd",
    "quoted": "s3cret%40%2Fw0rd",
    "a token": "ghp_s3cretw0rd0123456789",
}
URLS = {
    "a server": "postgresql://user:{}@127.0.0.1:1/db",
    "a driver that is missing": "mysql+pymysql://user:{}@127.0.0.1:1/db",
    "no such kind": "nonsense://user:{}@127.0.0.1:1/db",
    "an odd port": "postgresql://user:{}@127.0.0.1:port/db",
    "no scheme": "user:{}@127.0.0.1/db",
    "an option": "postgresql://127.0.0.1:1/db?user=me&password={}",
    "an option of SQLite": "sqlite:////no/such/directory/x.db?password={}",
    "a network address that is none": "http://user:{}\u2100@127.0.0.1:1",
    "files": "ftp://user:{}@127.0.0.1:1",
}
VARIABLES = {"--storage": "JAXDQN_STORAGE", "--tracking": "JAXDQN_TRACKING"}


class Outcome(NamedTuple):
    """What a command leaves."""

    status: int
    out: str
    err: str


Command = Callable[[list[str]], Outcome]


def assert_absent(secrets: tuple[str, ...], *texts: str | bytes) -> None:
    """No text holds one of the secrets, as it is or encoded."""
    for secret in secrets:
        plain = secret.encode()
        forms = [
            plain,
            quote(secret, safe="").encode(),
            base64.b64encode(plain).rstrip(b"=")[:-1],
            plain.hex().encode(),
        ]
        for text in texts:
            content = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
            assert [form for form in forms if form.lower() in content.lower()] == [], content[:2_000]


def written(directory: Path) -> list[str | bytes]:
    """The names and contents of all files below a directory, what pictures say of themselves included."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    texts: list[str | bytes] = [str(path.relative_to(directory)) for path in files]
    for path in files:
        texts.append(path.read_bytes())
        if path.suffix in (".png", ".gif"):
            with Image.open(path) as picture:
                texts.append(repr(picture.info))
    return texts


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sweep_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """Run the command in this process with a population that is none, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "prepare", lambda: None)  # JAX's backend has started
    monkeypatch.setattr(statistics, "NUM_RESAMPLES", 49)
    stand_in: Any = lambda config, layout, _: StandIn(config, layout, score=score)  # noqa: E731
    monkeypatch.setattr(run, "run", partial(run.run, make_population=stand_in))

    def call(arguments: list[str]) -> Outcome:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        monkeypatch.setattr(sys, "orig_argv", ["python", str(SCRIPT), *arguments])
        capfd.readouterr()
        status: Any = 0
        try:
            script.main(script.sweep, epilog=script.EXAMPLES)
        except SystemExit as ended:
            status = ended.code or 0
        return Outcome(status, *capfd.readouterr())

    return call


def by(how: str, option: str, url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give a URL to the command; return its words."""
    if how == "environment":
        monkeypatch.setenv(VARIABLES[option], url)
        return []
    return [f"{option}={url}"] if how == "word" else [option, url]


# What is refused


@pytest.mark.parametrize("kind", URLS)
def test_a_refusal_shows_no_password(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    option = "--storage" if "//" in URLS[kind] and not URLS[kind].startswith(("http", "ftp")) else "--tracking"
    for password, how in zip(PASSWORDS.values(), itertools.cycle(["option", "word", "environment"]), strict=False):
        monkeypatch.delenv(VARIABLES[option], raising=False)
        outcome = command(by(how, option, URLS[kind].format(password), monkeypatch))
        assert outcome.status == 2, outcome
        assert re.fullmatch(r"error: [^\n]+\n", outcome.err), outcome.err
        assert_absent(PARTS, outcome.out, outcome.err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["--storage", "postgresql://user:s3cretw0rd@127.0.0.1:1/db"], {}),
        ([], {"JAXDQN_STORAGE": "postgresql://user:s3cret@w0rd@127.0.0.1:port/db"}),
        ([], {"JAXDQN_TRACKING": "ftp://user:s3cret/w0rd@127.0.0.1:1"}),
    ],
)
def test_a_process_that_refuses_shows_no_password(
    tmp_path: Path, arguments: list[str], variables: dict[str, str]
) -> None:
    environment = {**os.environ, **variables, "PYTHONPATH": str(SCRIPT.parent.parent)}
    words = [sys.executable, str(SCRIPT), *arguments]
    ended = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert re.fullmatch(r"error: [^\n]+\n", ended.stderr)
    assert_absent(PARTS, ended.stdout, ended.stderr, *written(tmp_path))


# What runs


SMALL = ["--space", "one.toml", "--trials", "8", "--confirm-top", "2", "--confirm-seeds", "2", "--verdict-seeds", "2"]


def assert_swept(outcome: Outcome, directory: Path, *variables: str) -> str:
    """The sweep has ended, nothing shows a secret but the environment; return the command that goes on."""
    assert outcome.status == 0, outcome.err
    assert_absent(PARTS, outcome.out, outcome.err, *written(directory))
    others = {name: value for name, value in os.environ.items() if name not in variables}
    assert_absent(PARTS, *others.values())
    found = re.search(r"search on: +(.+)\n((?: +with .+\n)*)", outcome.out + outcome.err)
    assert found is not None, outcome
    assert re.findall(r"in (JAXDQN_\w+)", found[2]) == list(variables)
    return found[1]


@pytest.mark.filterwarnings("ignore")  # MLflow's
def test_a_whole_sweep_shows_no_password_and_the_command_that_goes_on_works(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded(tmp_path)
    storage = f"sqlite:///{tmp_path / 'here.db'}?password=s3cretw0rd"
    tracking = f"sqlite:///{tmp_path / 'there.db'}?password=s3cret%40w0rd"
    outcome = command([*SMALL, "--json", "--output", "out", "--storage", storage, f"--tracking={tracking}"])
    said = assert_swept(outcome, tmp_path, "JAXDQN_STORAGE", "JAXDQN_TRACKING")
    assert json.loads(outcome.out)["failures"] == []
    assert {path.name for path in tmp_path.iterdir()} >= {"here.db", "there.db", "out"}
    assert (tmp_path / "out" / "report.html").is_file()
    assert 'mlflow ui --backend-store-uri "$JAXDQN_TRACKING"' in outcome.err
    commands = journal.read(tmp_path / "out" / "study.log")
    assert '"commands"' in json.dumps(commands)

    monkeypatch.setenv("JAXDQN_STORAGE", storage)
    monkeypatch.setenv("JAXDQN_TRACKING", tracking)
    again = command(shlex.split(said)[2:])
    assert again.status == 0, again
    assert json.loads(again.out)["trials"]["complete"] == 16
    assert json.loads(again.out)["failures"] == []


@pytest.mark.parametrize("password", ["with an @", "with a colon", "with a percent sign", "not of ASCII", "quoted"])
@pytest.mark.filterwarnings("ignore")  # MLflow's
def test_a_server_that_does_not_answer_is_said_without_a_password(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    loaded(tmp_path)
    monkeypatch.setenv("JAXDQN_TRACKING", f"http://user:{PASSWORDS[password]}@127.0.0.1:1")
    outcome = command([*SMALL, "--confirm-top", "0", "--no-report", "--output", "out", "--storage", "off"])
    assert_swept(outcome, tmp_path, "JAXDQN_TRACKING")
    assert "trials are not in MLflow" in outcome.out


# What is hidden


@QUICK
@given(
    st.text(st.characters(codec="utf-8"), min_size=4),
    st.sampled_from([url for url in URLS.values() if "\u2100" not in url]),
    st.booleans(),
)
@example("@" * 4, URLS["a server"], False)
def test_no_password_is_left_in_a_url_and_in_what_is_said_of_it(password: str, url: str, quoted: bool) -> None:
    put = quote(password, safe="") if quoted else password
    assume("@" in url.partition("{}")[2] or not re.search("[&;]", put))
    assume(password not in url and password not in "***" and "***" not in password)
    whole = url.format(put)
    for text in (hide_password(whole), hide_password(f"{password} and {put}: no way", whole), shell_word(whole)):
        assert put not in text
        assert password not in text


@pytest.mark.parametrize("text", ["x" * 1_000_000, "x:" * 500_000, "@" + "x:" * 500_000, "?password" * 100_000])
def test_a_long_text_without_a_password_is_looked_through_at_once(text: str) -> None:
    assert hide_password(text) == text


def test_what_is_hidden_once_is_left_alone() -> None:
    for url in ("postgresql://u:***@h:1/x", "postgresql://h/x?password=***"):
        said = f"storage {url} can't be opened: no driver; install one"
        assert hide_password(said) == said


def test_a_command_is_told_without_the_options_that_hold_a_password() -> None:
    url, plain = "postgresql://u:pw@h/x", "sqlite:///x.db"
    for given_, told in (
        ([], []),
        (["--storage", url], []),
        ([f"--storage={url}", "--json"], ["--json"]),
        (["--seed", "1", "--storage", url, "--json"], ["--seed", "1", "--json"]),
        (["--storage", plain, "--tracking", url], ["--storage", plain]),
        (["--output", "a:b@c"], ["--output", "a:b@c"]),
    ):
        assert without_passwords(["x.py", *given_], ["--storage", "--tracking"]) == ["x.py", *told]
