"""An Optuna storage that follows the log, for `optuna-dashboard` and whatever else reads studies: opened, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage

from jaxdqn.database import make_ready
from jaxdqn.redact import hide_password


def open_storage(url: str) -> BaseStorage:
    """Open a storage; SQLite gets a write-ahead log, which spares a disk flush at every commit.

    Raises:
        ValueError: it can't be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if not url.startswith("sqlite"):
            return RDBStorage(url)
        storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 30}})
    except Exception as error:  # drivers raise what they like
        raise ValueError(f"storage {hide_password(url)} can't be opened: {reason(error, url)}") from None
    storage.engine.dispose()

    def prepare(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    sqlalchemy.event.listen(storage.engine, "connect", prepare)
    return storage


def open_followed(
    url: str | None, tracking: str | None, ours: Sequence[bool], log: Path | None, show: Callable[[str], None]
) -> BaseStorage | None:
    """Open the storage that follows a log; wait for it and for MLflow's database, and move them aside if damaged.

    Args:
        url: of the storage, None: there is none.
        tracking: MLflow's URI, None: there is none.
        ours: which of the two are ours, so that a damaged one may be written anew …
        log: … from here; None: there is no log yet.
        show: what the user is told.

    Raises:
        ValueError: one of them is locked or damaged, or the storage can't be opened.
    """
    for one, is_ours in zip((url, tracking), ours, strict=True):
        if one is not None:
            make_ready(one, log if is_ours else None, show)
    return None if url is None else open_storage(url)


def check_study(storage: BaseStorage, study_name: str, log_is_new: bool, output: Path) -> None:
    """Refuse a storage that already holds trials of a study whose log, in `output`, is new.

    Raises:
        ValueError: it does, or it can't be read.
    """
    if not log_is_new:
        return
    try:
        study_id = find_study(storage, study_name)
        holds = study_id is not None and find_trial(storage, study_id, 0) is not None
    except Exception as error:  # drivers raise what they like
        raise ValueError(f"storage {label(storage)} can't be read: {reason(error, url_of(storage))}") from None
    if holds:
        let_go(storage)
        raise ValueError(
            f"storage {label(storage)} already holds study {study_name!r}, but its log is not in {str(output)!r}: "
            "choose another --study or the --output it was made with"
        )


def find_study(storage: BaseStorage, name: str) -> int | None:
    """Return the storage's own number of a study, None: it is not there."""
    try:
        return storage.get_study_id_from_name(name)
    except KeyError:
        return None


def find_trial(storage: BaseStorage, study_id: int, number: int) -> int | None:
    """Return the storage's own number of a study's trial, None: it is not there."""
    try:
        return storage.get_trial_id_from_study_id_trial_number(study_id, number)
    except KeyError:
        return None


def url_of(storage: BaseStorage) -> str:
    """Return the URL of a storage, its password in it."""
    return storage.url if isinstance(storage, RDBStorage) else type(storage).__name__


def let_go(storage: BaseStorage) -> None:
    """Close the connections; whoever uses the storage again opens new ones."""
    storage.remove_session()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()


def label(storage: BaseStorage) -> str:
    """Return what a storage is called in a message."""
    return hide_password(url_of(storage))


def reason(error: Exception, url: str) -> str:
    """Return the first line of an error without passwords; Optuna's own words for a database's errors say nothing."""
    said = str(error.__cause__ or error if isinstance(error, StorageInternalError) else error).strip()
    return hide_password((said.splitlines() or [type(error).__name__])[0], url)
