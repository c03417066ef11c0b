"""How much memory is left: of the system, and of the groups a process is in."""

from pathlib import Path

import pytest

from jaxdqn.host_memory import available_bytes

GIB = 2**30


def system(root: Path, groups: str, **files: str) -> Path:
    """A system with 8 GiB left, whose control groups have these files (`__` stands for a slash)."""
    written = {"proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n", "proc/self/cgroup": groups}
    written |= {f"sys/fs/cgroup/{name.replace('__', '/')}": text for name, text in files.items()}
    for name, text in written.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def two(path: str, limit: str, used: int, file: int = 0) -> dict[str, str]:
    """The files of a group of version 2."""
    return {
        f"{path}memory.max": limit,
        f"{path}memory.current": f"{used}\n",
        f"{path}memory.stat": f"anon 7\ninactive_file {file}\nactive_file 9\n",
    }


def test_without_groups_it_is_what_the_system_has_left(tmp_path: Path) -> None:
    assert available_bytes(system(tmp_path, "")) == 8 * GIB


def test_a_group_leaves_its_limit_less_what_is_used_but_for_files_that_can_go(tmp_path: Path) -> None:
    files = two("a__", f"{4 * GIB}\n", 3 * GIB, 2 * GIB)
    assert available_bytes(system(tmp_path, "0::/a\n", **files)) == 3 * GIB


def test_a_group_without_a_limit_takes_its_parents(tmp_path: Path) -> None:
    files = two("a__b__", "max\n", GIB) | two("a__", f"{2 * GIB}\n", GIB)
    assert available_bytes(system(tmp_path, "0::/a/b\n", **files)) == GIB


def test_in_a_container_the_top_counts_where_the_group_is_not_there(tmp_path: Path) -> None:
    assert available_bytes(system(tmp_path, "0::/docker/x\n", **two("", f"{3 * GIB}", GIB))) == 2 * GIB


def test_groups_of_the_first_version_count_too(tmp_path: Path) -> None:
    files = {
        "memory__a__memory.limit_in_bytes": f"{2 * GIB}\n",
        "memory__a__memory.usage_in_bytes": f"{GIB}\n",
        "memory__a__memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 2}\n",
    }
    assert available_bytes(system(tmp_path, "4:cpu,memory:/a\n0::/\n", **files)) == GIB + GIB // 2


def test_a_group_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    assert available_bytes(system(tmp_path, "0::/\n", **two("", f"{GIB}", 2 * GIB))) == 0


@pytest.mark.parametrize("group", ["0::/../../etc\n", "4:memory:/\n0::/\n", "nonsense:x:y\n"])
def test_odd_groups_are_passed_over(tmp_path: Path, group: str) -> None:
    assert available_bytes(system(tmp_path, group)) == 8 * GIB


def test_this_machine_has_some_left() -> None:
    left = available_bytes()
    assert left is None or left > 0
