"""Files that are there whole or not at all."""

import os
import time
from pathlib import Path

from jaxdqn.files import stage, sweep_away


def test_what_a_killed_writer_left_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    old, young = stage(tmp_path / "agents" / "a.json", b"half"), stage(tmp_path / "b.json", b"half")
    kept = [tmp_path / name for name in (".hidden.tmp", "notes.tmp", ".0123456789abcdef.tmp.bak", "study.log")]
    for path in kept:
        path.write_bytes(b"mine")
    for path in (old, *kept):
        os.utime(path, (time.time() - 1000,) * 2)
    (tmp_path / f".{'0' * 16}.tmp").symlink_to(kept[0])
    sweep_away(tmp_path)
    assert not old.exists()
    assert young.exists()
    assert all(path.exists() for path in kept)
