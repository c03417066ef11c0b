"""The settings of a sweep: where it is written, and what may not be."""

from pathlib import Path

import pytest

from jaxdqn.plan import Settings, plan, slug


@pytest.mark.parametrize("name", ["default-CartPole-v1", "a", "A.b_c-1", "console", "x" * 100])
def test_an_ordinary_name_is_its_directory(name: str) -> None:
    assert slug(name) == name


ODD = ["", ".", "..", "a.", ".a", "a/b", "a\\b", "-a", "CON", "nul", "Aux.txt", "com1", "LPT9.x", "ä", "😀", "a b"]


def test_an_odd_name_has_a_directory_of_its_own_that_every_system_takes() -> None:
    names = [*ODD, "x" * 101, "x" * 200, "a:b", "a?b", "a*b", 'a"b', "a<b", "a|b", "~"]
    directories = [slug(name) for name in names]
    assert len({directory.lower() for directory in directories}) == len(names)
    for directory in directories:
        assert directory == slug(directory)  # safe
        assert len(directory) <= 100


@pytest.mark.parametrize("character", "?%{}")
def test_a_directory_that_a_database_can_not_be_named_in_is_refused(tmp_path: Path, character: str) -> None:
    output = tmp_path / f"a{character}b"
    with pytest.raises(ValueError, match="mean something in its URL; give another --output, or --storage and"):
        plan(Settings(output=output))
    assert plan(Settings(output=output, storage="off", tracking="off")).output == output


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_directory_that_can_not_be_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"output directory '.* can't be written"):
        plan(Settings(output=tmp_path / name, storage="off", tracking="off"))
