"""What the commands share: what a user got wrong is one line on stderr and exit status 2."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import typer

from jaxdqn.redact import hide_password

MAX_LINE = 4_000  # characters of an error


def main(*functions: Callable[..., Any], epilog: str | None = None) -> NoReturn:
    """Run a command, whose arguments and help are those of its function, and end the process.

    Of several functions the first word names one; the first of them is meant where none is named.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    for function in functions:
        app.command(epilog=epilog)(function)
    words = sys.argv[1:]
    if len(functions) > 1 and (not words or (words[0].startswith("-") and words[0] != "--help")):
        words = [functions[0].__name__, *words]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that a terminal can't show must not end a command
    command = typer.main.get_command(app)
    try:
        sys.exit(command(words, standalone_mode=False))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        wrong = [repr(detail["input"]) for detail in getattr(error.__cause__, "errors", list)()]
        refuse(": ".join([error.format_message(), *wrong]))


def refuse(reason: str, status: int = 2) -> NoReturn:
    """End the process with one line that says why."""
    line = hide_password(" ".join(reason.split()))
    print(f"error: {line if len(line) <= MAX_LINE else f'{line[:MAX_LINE]}…'}", file=sys.stderr)
    sys.exit(status)


def stop_on_signals(leave_after_s: float | None = None, goodbye: str = "") -> threading.Event:
    """Let the first SIGINT or SIGTERM set an event, which ends the work after its segment.

    The second one ends the process at once, and so does the first one after `leave_after_s`, with `goodbye` on stderr.
    A thread listens: the main one may be waiting for a compiler.
    """
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    heard, told = socket.socketpair()
    told.setblocking(False)
    for number in signals:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        _next_of(signals, heard)
        stop.set()
        _say("ending after this segment; once more to leave at once\n")
        heard.settimeout(leave_after_s)
        last = "\x1b[?25h" if os.isatty(2) else ""  # a live table hides the cursor
        try:
            _next_of(signals, heard)
        except TimeoutError:
            last = f"{goodbye}\n{last}"
        told.close()
        _say(last)
        os._exit(130)

    threading.Thread(target=listen, name="signals", daemon=True).start()
    return stop


def _say(text: str) -> None:
    """Write to stderr, but wait no longer than a moment for whoever reads it, and not at all if nobody does."""

    def write() -> None:
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="backslashreplace"))

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    writer.join(0.2)


def _next_of(signals: tuple[signal.Signals, ...], heard: socket.socket) -> None:
    """Wait for one of these signals."""
    while heard.recv(1)[0] not in signals:
        pass


def shell_word(text: Any) -> str:
    """Quote a word for a shell, its password hidden."""
    return shlex.quote(hide_password(str(text)))


def typed(options: Iterable[str] = ()) -> str:
    """Return the command as it was typed, without passwords: without the `options` that hold one."""
    return " ".join(map(shell_word, without_passwords(sys.orig_argv, options)))


def without_passwords(words: list[str], options: Iterable[str]) -> list[str]:
    """Return the words of a command without those of the `options` whose values hold a password."""
    kept: list[str] = []
    for word in words:
        own, before = word.partition("=")[0] in options, kept[-1:] and kept[-1] in options
        if hide_password(word) == word or not (own or before):
            kept.append(word)
        elif not own:
            kept.pop()
    return kept
