"""Peers are spoken to over a pipe; what goes wrong with them is one line."""

import hashlib
import platform
import sys
from pathlib import Path

import pytest

from jaxdqn.peers import COMPLETE, Peer, PeerError, Running, prepare

SERVING = Path(__file__).parent.parent / "scripts" / "peers"


def peer(directory: Path, code: str, requirements: str = "") -> Peer:
    """A stand-in: a script, which may import `serving`."""
    script, needs = directory / "peer.py", directory / "requirements-some.txt"
    script.write_text(
        f"import os, sys, time\nsys.path.insert(0, {str(SERVING)!r})\nfrom serving import serve\n{code}\n"
    )
    needs.write_text(requirements)
    return Peer(script, needs)


def running(directory: Path, code: str) -> Running:
    return Running(Path(sys.executable), peer(directory, code))


def test_one_process_answers_many_requests(tmp_path: Path) -> None:
    code = "serve(lambda request: {'twice': 2 * request['x'], 'pid': os.getpid()})"
    with running(tmp_path, code) as one:
        answers = [one.ask({"x": x}, 60) for x in (1, 2, 21)]
    assert [answer["twice"] for answer in answers] == [2, 4, 42]
    assert len({answer["pid"] for answer in answers}) == 1


def test_what_a_library_prints_is_no_answer(tmp_path: Path) -> None:
    with running(tmp_path, "serve(lambda request: (print('hello'), os.system('echo hello'), {'x': 1})[-1])") as one:
        assert one.ask({"x": 1}, 60) == {"x": 1}
        assert one.ask({"x": 2}, 60) == {"x": 1}


def test_an_empty_request_is_answered_by_versions(tmp_path: Path) -> None:
    with running(tmp_path, "serve(lambda request: {}, 'pytest')") as one:
        assert one.ask({}, 60) == {"versions": {"pytest": pytest.__version__}}


def test_a_peer_that_fails_is_quoted_in_one_line(tmp_path: Path) -> None:
    with running(tmp_path, "serve(lambda request: {'x': 1 / request['x']})") as one:
        assert one.ask({"x": 1}, 60) == {"x": 1.0}
        with pytest.raises(PeerError, match=r"^peer.py failed \(exit status 1\): ZeroDivisionError: [^\n]+$"):
            one.ask({"x": 0}, 60)
        with pytest.raises(PeerError, match="failed"):
            one.ask({"x": 1}, 60)


def test_a_peer_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with running(tmp_path, "serve(lambda request: time.sleep(600))") as one:
        with pytest.raises(PeerError, match=r"no answer within 0\.5 s"):
            one.ask({"x": 1}, 0.5)
        assert one._process.wait(60) != 0


@pytest.mark.parametrize("said", ["no JSON", "[1]", "NaN", ""])
def test_an_answer_that_is_no_object_is_quoted(tmp_path: Path, said: str) -> None:
    with (
        running(tmp_path, f"sys.stdin.readline(); print({said!r}, flush=True); time.sleep(600)") as one,
        pytest.raises(PeerError, match=f"answered {said!r}".replace("[", r"\[")),
    ):
        one.ask({"x": 1}, 60)


def test_settings_of_our_jax_are_not_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    with running(tmp_path, "serve(lambda request: {'flags': os.environ.get('XLA_FLAGS')})") as one:
        assert one.ask({"x": 1}, 60) == {"flags": None}


def test_an_environment_that_is_whole_is_used_again(tmp_path: Path) -> None:
    one = peer(tmp_path, "", requirements="something==1.0\n")
    python = one.python(tmp_path)
    python.parent.mkdir(parents=True)
    python.touch()
    made_of = hashlib.sha256(f"{platform.python_version()}\nsomething==1.0\n".encode()).hexdigest()
    (tmp_path / "some" / COMPLETE).write_text(made_of)
    assert prepare(one, tmp_path) == python
    assert python.stat().st_size == 0  # nothing was made


@pytest.mark.slow
def test_an_environment_is_made_and_marked_once_it_is_whole(tmp_path: Path) -> None:
    one = peer(tmp_path, "serve(lambda request: {'prefix': sys.prefix})", requirements="# nothing\n")
    python = prepare(one, tmp_path)
    with Running(python, one) as other:
        assert other.ask({"x": 1}, 60) == {"prefix": str(tmp_path / "some")}
    marked = (tmp_path / "some" / COMPLETE).stat().st_mtime_ns
    assert prepare(one, tmp_path) == python
    assert (tmp_path / "some" / COMPLETE).stat().st_mtime_ns == marked

    one.requirements.write_text("./not-there\n")  # what was made is not what is wanted now
    with pytest.raises(
        PeerError, match=r"^the environment .*some can't be made: [^\n]*not-there[^\n]* network, [^\n]+$"
    ):
        prepare(one, tmp_path)
    assert not (tmp_path / "some" / COMPLETE).exists()


def test_an_environment_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PeerError, match="can't be made: Not a directory"):
        prepare(peer(tmp_path, ""), tmp_path / "file")
