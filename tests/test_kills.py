"""The command itself, killed without warning: nothing is lost and nothing is doubled."""

import itertools
import random
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import kills

MIN_KILLS = 8


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a sweep comes to that is left alone."""
    directory = tmp_path_factory.mktemp("alone")
    assert kills.start(directory, "out").wait(600) == 0, (directory / "out.txt").read_text()
    return kills.outcome(directory / "out")


@pytest.mark.slow
@pytest.mark.parametrize("snapshots", ["0", "1"])
def test_a_sweep_killed_again_and_again_ends_as_if_it_had_been_left_alone(
    tmp_path: Path, alone: dict[str, object], snapshots: str
) -> None:
    moments, struck = random.Random(int(snapshots)), 0
    log, said = tmp_path / "out" / "study.log", tmp_path / "out.txt"
    for attempt in itertools.count():
        process = kills.start(tmp_path, "out", "--snapshot-every", snapshots)
        if attempt < 10:
            kills.until_it_logs(process, log)
            delay = moments.uniform(0.0, 4.0)
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                struck += kills.kill(process)
                continue
        assert process.wait(600) == 0, said.read_text()
        break
    assert struck >= MIN_KILLS, said.read_text()
    ends = kills.outcome(tmp_path / "out")
    assert [number for number, *_ in ends["trials"]] == list(range(kills.TRIALS))
    assert "running" not in {state for _, state, *_ in ends["trials"]}
    assert ends == alone
    assert not any(trouble in said.read_text() for trouble in ("came out differently", "can't be written", "Traceback"))


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["compiling", "best so far"])
def test_a_signal_leaves_soon_with_the_command_that_goes_on(tmp_path: Path, moment: str) -> None:
    said = tmp_path / "out.txt"
    process = kills.start(tmp_path, "out", "--trials", "12")
    while moment not in said.read_text():
        assert process.poll() is None, said.read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130  # 10 seconds are promised; this machine may be busy
    assert "Traceback" not in said.read_text()
    printed = re.search(r"continue this study: (.+)", said.read_text())
    assert printed is not None, said.read_text()
    done = subprocess.run(shlex.split(printed[1]), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [number for number, *_ in kills.outcome(tmp_path / "out")["trials"]] == list(range(12))


@pytest.mark.slow
def test_the_second_signal_leaves_at_once(tmp_path: Path) -> None:
    said = tmp_path / "out.txt"
    process = kills.start(tmp_path, "out", "--trials", "12")
    for what in ("compiling", "once more to leave at once"):
        while what not in said.read_text():
            assert process.poll() is None, said.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130
    assert "Traceback" not in said.read_text()
