"""Keep passwords out of whatever people or files get to see."""

from __future__ import annotations

import re
from urllib.parse import unquote

_AFTER_USER = re.compile(r"[^:/@]*:([^/@].*)@")  # up to the last @: a password may hold one
_WITH_SLASH = re.compile(r"//[^/@:]*:(/.*)@")  # one that begins with a slash, which SQLAlchemy takes
_AS_OPTION = re.compile(r"(?:[?&;]|%3B)\w*(?:password|passwd|pwd|token)(?:=|%3D)([^&;]+?)(?=[&;]|%3B|$)", re.IGNORECASE)


def hide_password(text: str, url: str | None = None) -> str:
    """Return `text` without the password of `url` (of the text itself, if none is given).

    A URL that can't be parsed may hold one all the same, so this looks at the characters only.
    """
    quoted = text if url is None else url
    for found in _AFTER_USER.findall(quoted) + _WITH_SLASH.findall(quoted) + _AS_OPTION.findall(quoted):
        for secret in (found, unquote(found)):
            text = text.replace(secret, "***")
    return text
