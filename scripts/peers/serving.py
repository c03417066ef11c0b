"""How a peer speaks: a line of JSON in, a line of JSON out, until its input ends. Knows no library."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]], *distributions: str) -> None:
    """Answer each request on stdin by a line on stdout; whatever a library prints goes to stderr.

    An empty request is answered by the versions of the distributions named.
    """
    versions = {name: metadata.version(name) for name in distributions}
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        for line in sys.stdin:
            request = json.loads(line)
            answered = answer(request) if request else {"versions": versions}
            print(json.dumps(answered, allow_nan=False), file=out, flush=True)
