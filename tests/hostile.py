"""Values that nobody should type, files that nobody should write, and what they must lead to."""

import copy
import json
import tomllib
from importlib import resources
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from jaxdqn import space
from jaxdqn.hyperparams import Hyperparams

QUICK = settings(  # the same examples everywhere
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

CHARACTERS = [
    "",
    " ",
    "\n",
    "a\nb",
    "\0",
    "a\0b",
    "\ud800",
    "x\udc80",
    "\x1b[31m",
    "\u202e",
    "😀",
    "é" * 99,
    "x" * 100_000,
]
PATHS = [
    ".",
    "..",
    "../..",
    "/",
    "//",
    "~",
    "a/b",
    "a\\b",
    "/dev/null",
    "/dev/zero",
    "a?b",
    "a%41b",
    "a{b}",
    "NUL",
    "a.",
]
SYNTAX = ["nan", "inf", "-0", "-", "[x]", "[bold]", "<b>", "'", '"', "$(id)", "off", "default"]
ADDRESSES = [
    "http://[",
    "http://a]b",
    "http://u:secret\u2100@h",
    "http://u:p w@h\n",
    "HTTP://x",
    "sqlite:///?",
    "x://u:p@",
]
WORDS = st.sampled_from([*CHARACTERS, *PATHS, *SYNTAX, *ADDRESSES])
TEXTS = WORDS | st.text(st.characters(), max_size=20)
INTS = st.sampled_from([0, 1, -1, 2, 64, 2**31, 2**63, 10**30, 10**400, -(10**400)]) | st.integers()
FLOATS = st.sampled_from([0.0, -0.0, 0.5, 1e-320, 1e308, float("nan"), float("inf"), float("-inf")]) | st.floats()


def deep(depth: int) -> list[Any]:
    """A list in a list in a list …"""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


SCALARS = INTS | FLOATS | st.booleans() | TEXTS
ANYTHING = st.recursive(
    SCALARS | st.builds(deep, st.integers(1, 100)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PRESETS = [
    tomllib.loads((resources.files("jaxdqn.spaces") / f"{name}.toml").read_text("utf-8")) for name in space.presets()
]
KEYS = st.sampled_from([*space.Space.__dataclass_fields__, *Hyperparams._fields]) | TEXTS


def inside(content: Any) -> list[Any]:
    """All tables and lists of a document, itself the first."""
    values = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [content, *(one for value in values if isinstance(value, dict | list) for one in inside(value))]


def spoil(draw: st.DrawFn, content: Any, values: st.SearchStrategy[Any], keys: st.SearchStrategy[str]) -> None:
    """Change one thing in a document."""
    place = draw(st.sampled_from(inside(content)))
    known = sorted(place) if isinstance(place, dict) else list(range(len(place)))
    key = draw(st.sampled_from(known)) if known else None
    kind = draw(st.sampled_from(["put", "drop", "add", "wrap", "double", "flood"]))
    if isinstance(place, list):
        new = draw(values)
        if key is None or kind == "add":
            place.append(new)
        elif kind == "drop":
            del place[key]
        elif kind == "double":
            place.append(copy.deepcopy(place[key]))
        elif kind == "flood":
            place += [0] * 5_000
        else:
            place[key] = [place[key]] if kind == "wrap" else new
    elif key is None or kind == "add":
        place[draw(keys)] = draw(values)
    elif kind == "drop":
        del place[key]
    elif kind == "flood":
        place.update({f"{key}{i}": 0 for i in range(5_000)})
    else:
        place[key] = {"put": draw(values), "wrap": [place[key]], "double": {key: place[key]}}[kind]


@st.composite
def spoilt(
    draw: st.DrawFn, contents: list[Any], values: st.SearchStrategy[Any] = ANYTHING, keys: st.SearchStrategy[str] = KEYS
) -> Any:
    """One of these documents, with a few changes."""
    content = copy.deepcopy(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 3))):
        spoil(draw, content, values, keys)
    return content


def toml(value: Any) -> str:
    """A value as TOML, a table inline."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{quoted(key)} = {toml(item)}' for key, item in value.items())} }}"
    if isinstance(value, int) and abs(value) >= 10**300:
        return f"0x{abs(value):x}"  # as long as one likes
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def quoted(text: str) -> str:
    return text if text.isidentifier() and text.isascii() else json.dumps(text, ensure_ascii=False)


def document(content: dict[str, Any]) -> bytes:
    """A TOML file."""
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    lines = [f"{quoted(key)} = {toml(value)}" for key, value in content.items() if key not in tables]
    for name, table in tables.items():
        lines += [f"[{quoted(name)}]", *(f"{quoted(key)} = {toml(value)}" for key, value in table.items())]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def assert_plain(error: ValueError) -> None:
    """Said in one line, that a command can print."""
    text = str(error)
    assert text.strip()
    assert "\n" not in text
    assert len(text) < 2_000 or "x" * 10_000 in text
