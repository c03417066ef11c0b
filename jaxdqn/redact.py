"""What errors quote: passwords never, long values cut."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

_AFTER_USER = re.compile(r":(?!//|\*\*\*@)(.+)@", re.DOTALL)  # up to the last @: a password may hold one
_WITH_SLASHES = re.compile(r"//[^/@:]*:(//.*)@", re.DOTALL)  # one that begins with two, which SQLAlchemy takes
_AS_USER = re.compile(r"https?://([^/@:]+):?@", re.IGNORECASE)  # a token, without a password
_AS_OPTION = re.compile(
    r"(?:[?&;]|%3B)[\w-]*(?:password|passwd|passphrase|pwd|token|secret|api[-_]?key)(?:=|%3D)"
    r"(?!\*\*\*)([^&;]+?)(?=[&;]|%3B|$)",
    re.IGNORECASE,
)
_PARTS = re.compile(r"[^/@:?#%&;=+\s]{3,}")
_MOST = 200  # characters of a value that are quoted


def hide_password(text: str, url: str | None = None) -> str:
    """Return `text` without the password of `url` (of the text itself, if none is given).

    A URL that can't be parsed may hold one all the same, so this looks at the characters only. Of a `url` also parts of
    its password are hidden: libraries that parse it otherwise quote some.
    """
    hidden: set[str] = set()
    for found in _passwords(text if url is None else url):
        parts = {found, unquote(found), unquote_plus(found)}
        if url is not None:
            parts = parts.union(*map(_PARTS.findall, parts))
        hidden |= {form for part in parts for form in (part, quote(part, safe=""), repr(part)[1:-1])}
    for secret in sorted(hidden, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def short(value: Any) -> str:
    """Return a value as an error quotes it."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number too long to be shown"
    return text if len(text) <= _MOST else f"{text[:_MOST]}…"


def _passwords(text: str) -> list[str]:
    head = text[: text.rfind("@") + 1]  # so that no expression looks for an @ again and again in vain
    spans = [found.span(1) for one in (_AFTER_USER, _WITH_SLASHES, _AS_USER) for found in one.finditer(head)]
    spans += [found.span(1) for found in _AS_OPTION.finditer(text)]
    joined: list[tuple[int, int]] = []  # those that overlap: a hidden one must not keep the rest of another from view
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return [text[start:end] for start, end in {*spans, *joined}]
