"""Files are there whole or not at all, and nobody else's while they are written."""

import os
import stat
import time
from pathlib import Path

import pytest

from jaxdqn import files
from jaxdqn.saved_agent import save
from tests.agents import balancing


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_private_until_it_is_whole_and_then_like_the_users_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (seen.append(stat.S_IMODE(os.fstat(file).st_mode)), flush(file)))
    (tmp_path / "others").write_bytes(b"")
    files.write_whole(tmp_path / "x", b"one")
    assert seen[0] == 0o600
    files.write_whole(tmp_path / "x", b"two")
    assert (tmp_path / "x").read_bytes() == b"two"
    assert mode(tmp_path / "x") == mode(tmp_path / "others")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["others", "x"]
    monkeypatch.setattr(files, "_UMASK", 0o077)
    files.write_whole(tmp_path / "x", b"three")
    assert mode(tmp_path / "x") == 0o600


def test_a_staged_file_is_private(tmp_path: Path) -> None:
    assert mode(files.stage(tmp_path / "x", b"one")) == 0o600


def test_saved_agents_may_be_read_like_the_users_other_files(tmp_path: Path) -> None:
    (tmp_path / "others").write_bytes(b"")
    about = save(tmp_path / "agent", balancing())
    assert {mode(about), mode(about.with_suffix(".safetensors"))} == {mode(tmp_path / "others")}


@pytest.mark.parametrize(("content", "limit"), [(b"12345", 4), (b"1", 0)])
def test_a_file_that_is_too_large_is_refused(tmp_path: Path, content: bytes, limit: int) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=f"at most {limit} are allowed"):
        files.read_at_most(tmp_path / "x", limit)
    assert files.read_at_most(tmp_path / "x", len(content)) == content


@pytest.mark.parametrize("name", ["missing", "x" * 300, "a\0b", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"no file|can't be read"):
        files.read_at_most(tmp_path / name, 9)


def test_what_a_killed_writer_left_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    old, young = files.stage(tmp_path / "agents" / "a.json", b"half"), files.stage(tmp_path / "b.json", b"half")
    kept = [tmp_path / name for name in (".hidden.tmp", "notes.tmp", ".0123456789abcdef.tmp.bak", "study.log")]
    for path in kept:
        path.write_bytes(b"mine")
    for path in (old, *kept):
        os.utime(path, (time.time() - 1000,) * 2)
    (tmp_path / f".{'0' * 16}.tmp").symlink_to(kept[0])
    files.sweep_away(tmp_path)
    assert not old.exists()
    assert young.exists()
    assert all(path.exists() for path in kept)
