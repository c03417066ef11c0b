"""From a plan to what is open: the lanes' layout, the log with its study, the storage that follows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxdqn import (
    compile_cache,
    cost,
    devices,
    files,
    fingerprint,
    grid,
    records,
    restoring,
    space,
    space_config,
    study,
)
from jaxdqn.config import Config, Layout
from jaxdqn.cost import SPEEDS
from jaxdqn.database import path_of
from jaxdqn.journal import is_blank
from jaxdqn.plan import AUTO, Plan, Settings
from jaxdqn.storage import check_study, open_followed, open_storage
from jaxdqn.storage_sink import StorageSink
from jaxdqn.study import Study

_RESULTS = ("agents", "snapshots", "report", "report.html", "mlflow.db")  # of a sweep, besides its log and its storage


@dataclass(frozen=True)
class Opened:
    """A plan whose devices, log and storage are there."""

    plan: Plan
    config: Config
    layout: Layout
    study: Study
    connect_storage: Callable[[], StorageSink] | None  # None: no storage follows the log
    restored: str | None = None  # what came back from a backup


def open_plan(plan: Plan, show: Callable[[str], None] = lambda _: None) -> Opened:
    """Lay the lanes out, open the storage that follows, and open or begin the study; `show` says what that takes.

    Raises:
        ValueError: devices, output, log, storage or sampler are not as the settings say.
    """
    settings = plan.settings
    config, platform = space_config.of(plan.space), devices.platform()
    largest_block = cost.largest_block(config, space_config.is_mixed(plan.space), platform)
    lanes = None if settings.lanes == AUTO else settings.lanes
    layout = devices.choose_layout(lanes, settings.devices, largest_block)
    if plan.sampler == "grid":
        plan = _with_grid(plan, config, layout)
    identity = {**plan.space.identity(), "seed": settings.seed, "objective": "mean_return"}
    if plan.sampler == "grid":
        identity["sampler"] = "grid"  # its cells go by the trials' numbers: no other sampler may have taken some
    restored = restoring.restore(settings.backup_to, plan.log, plan.study_name) if settings.backup_to else None
    has_log = check_log(plan.log)
    ours = [settings.storage is None, settings.tracking is None]
    if settings.storage is None:
        _make_output(plan)
    # A new database of ours is made by the thread that writes to it: that takes half a second, and nothing is to check.
    new = settings.storage is None and plan.storage is not None and path_of(plan.storage) is None
    now = None if new else plan.storage
    storage = None if has_log else open_followed(now, plan.tracking, ours, None, show)
    if storage is not None:
        check_study(storage, plan.study_name, True, plan.output)
    _make_output(plan)
    opened = study.open_study(plan.log, plan.study_name, plan.space, identity, plan.sampler, settings.seed, plan.pruner)
    if has_log:  # only now nobody else has it, so that nobody else writes to what is moved aside
        try:
            storage = open_followed(now, plan.tracking, ours, plan.log, show)
        except BaseException:
            opened.close()
            raise

    def connect() -> StorageSink:
        assert plan.storage is not None
        there = open_storage(plan.storage) if storage is None else storage
        attributes = {records.IDENTITY: json.dumps(identity)}
        directions = ("maximize", "minimize") if plan.space.minimize else ("maximize",)
        return StorageSink(there, plan.study_name, plan.space.searched, attributes, directions)

    try:
        files.sweep_away(plan.output)
        layout = _settled(plan, config, layout, opened.past().where, show)
    except BaseException:
        opened.close()
        raise
    return Opened(plan, config, layout, opened, None if plan.storage is None else connect, restored)


def check_log(log: Path) -> bool:
    """Return whether a log is there that holds anything.

    Raises:
        ValueError: none is, but the results of a sweep that must have had one are.
    """
    if not is_blank(log):
        return True
    found = [name for name in _RESULTS if _holds_anything(log.with_name(name))]
    if found:
        what = "holds no whole record" if log.exists() else "is not there"
        there = f"{', '.join(found)} in {str(log.parent)!r} are an earlier sweep's"
        raise ValueError(f"the log {log} {what}, but {there}: restore the log, or move the directory away")
    return False


def _holds_anything(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _settled(plan: Plan, config: Config, layout: Layout, where: dict[str, Any], show: Callable[[str], None]) -> Layout:
    """Return the layout a study has, else one chosen by trying if that is wanted, else `layout`."""
    kept, automatic = _layout_of(where, plan.settings), plan.settings.lanes == AUTO
    if kept and automatic:
        show(f"the study keeps its {kept.lanes} lanes in blocks of {kept.block}: another layout would give other bits")
    if kept or not automatic:
        return kept or layout
    from jaxdqn import lane_probe  # only where it is needed: SciPy's statistics take their time

    # That it can't be used is said when the population is compiled.
    compile_cache.use(devices.platform(), plan.settings.cache)
    return lane_probe.automatic(plan.space, config, layout.devices, _num_agents(plan), show)


def _num_agents(plan: Plan) -> int | None:
    """Return the most agents that may ever want a lane at the same time; None: any number."""
    settings = plan.settings
    fresh = settings.confirm_top * settings.confirm_seeds, settings.verdict_seeds
    return None if settings.trials is None else max(settings.trials * plan.space.seeds, *fresh)


def _layout_of(where: dict[str, Any], settings: Settings) -> Layout | None:
    """Return the layout an earlier sweep of the study had, unless this is another machine or another one is wanted."""
    known = {field.name: where[field.name] for field in dataclasses.fields(Layout) if field.name in where}
    if not known or settings.lanes not in (None, AUTO):
        return None
    if settings.devices is not None and (settings.lanes is None or settings.devices != known["devices"]):
        return None
    same = where["device"] == fingerprint.of_machine()["device"] and known["devices"] <= len(jax.local_devices())
    return Layout(**known) if same else None


def _with_grid(plan: Plan, config: Config, layout: Layout) -> Plan:
    """Return the plan with no more trials than its grid has cells."""
    settings = plan.settings
    middle = plan.space.hyperparams({name: space.middle(domain) for name, domain in plan.space.searched.items()})
    seconds = cost.agent_s(middle, config, layout, SPEEDS[devices.platform()]) * plan.space.seeds
    cells = grid.check_grid(plan.space.searched, seconds)
    trials = cells if settings.trials is None else min(settings.trials, cells)
    return dataclasses.replace(plan, settings=dataclasses.replace(settings, trials=trials))


def _make_output(plan: Plan) -> None:
    """Make the output directory."""
    try:
        plan.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output directory {str(plan.output)!r} can't be made: {error}") from error
