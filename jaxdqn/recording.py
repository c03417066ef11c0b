"""What follows the log of a sweep: Optuna storage, MLflow and backup, and what the user is told of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from jaxdqn.backup import Backup
from jaxdqn.config import Config
from jaxdqn.events import TrialEnded, Visited
from jaxdqn.follower import FINISHED, PATIENCE_S, Conclusion, Follower, Metric, Sink, Trial, TrialDetail
from jaxdqn.host_agent import Agent
from jaxdqn.plan import Plan
from jaxdqn.storage_sink import StorageSink
from jaxdqn.study import Study
from jaxdqn.tracking import ALL_UP_TO, BEST_KEPT, MlflowSink

TRACED_AFTER_S = 5.0  # what is compiled anew then keeps XLA busy, which needs no Python


class Recording:
    """The Optuna storage, MLflow and the backup behind the log, and what the user is told of them."""

    def __init__(
        self,
        plan: Plan,
        config: Config,
        study: Study,
        connect_storage: Callable[[], StorageSink] | None,
        show: Callable[[str], None],
    ) -> None:
        """Start the followers, beginning with what they may have missed of earlier sweeps."""
        self._config, self._show = config, show
        self._storage: Follower | None = None
        self._mlflow: Follower | None = None
        self._training = threading.Event()
        history = study.trials()
        if connect_storage and plan.storage:
            self._storage = Follower("the storage", self._when_training(connect_storage), history, secrets=plan.storage)
        if plan.tracking:
            uri, name, artifacts, log_id = plan.tracking, plan.study_name, plan.artifacts, study.log_id
            tags = {"jaxdqn.space": plan.space.name, "jaxdqn.env": plan.space.env}
            tags["jaxdqn.seed"] = str(plan.settings.seed)
            finished = [_from_log(trial, plan) for trial in history if trial.state in FINISHED]

            def connect() -> MlflowSink:
                return MlflowSink(uri, name, artifacts, tags, log_id)

            self._mlflow = Follower("MLflow", self._when_training(connect), finished, secrets=uri)
        self._all = [follower for follower in (self._storage, self._mlflow) if follower]
        self._backup: Backup | None = None
        if plan.settings.backup_to:
            target, every_s = plan.settings.backup_to, plan.settings.backup_every
            self._backup = Backup(target, plan.log, lambda: study.log_bytes, every_s)
        self._watched: list[Follower | Backup] = [*self._all, self._backup] if self._backup else [*self._all]
        self._said: set[str] = set()

    def _when_training(self, connect: Callable[[], Sink]) -> Callable[[], Sink]:
        """Let a sink be opened when the compiler or the devices work: its imports would take turns with the tracing."""

        def later() -> Sink:
            self._training.wait(TRACED_AFTER_S)
            return connect()

        return later

    def begun(self) -> None:
        """Say that agents train."""
        self._training.set()

    def visited(self, event: Visited) -> float:
        """Hand the changed trials to the storage; return the seconds this waited."""
        waited = sum(self._put(self._storage, trial) for trial in event.changed) if self._storage else 0.0
        for follower in self._watched:
            if follower.failure:
                self._say_once(f"{follower.name} can't be written, the search goes on: {follower.failure}")
        if self._mlflow and sum(event.counts[state] for state in FINISHED) > ALL_UP_TO:
            self._say_once(
                f"MLflow: from trial {ALL_UP_TO:,} on, only the best {BEST_KEPT} so far get a run; its table has all"
            )
        return waited

    def ended(self, event: TrialEnded, trial: Trial) -> float:
        """Hand a trial that was told to MLflow; return the seconds this waited."""
        return (
            self._put(self._mlflow, trial._replace(detail=_detail(event, trial, self._config))) if self._mlflow else 0.0
        )

    def close(self, conclusion: Conclusion | None = None, patience_s: float = PATIENCE_S) -> list[str]:
        """Write what is queued, then what the sweep has come to; return what could not be written, a line each.

        A follower that writes nothing for `patience_s` is given up.
        """
        failures = []
        self.begun()
        for follower in self._all:
            if follower.waiting:
                self._show(f"writing {follower.waiting} trials to {follower.name}")
            failures.append(follower.close(conclusion, patience_s))
        if self._backup:  # last: it takes the storage's file as the storage has left it
            self._show(f"finishing {self._backup.name}")
            failures.append(self._backup.close(patience_s))
        return [failure for failure in failures if failure]

    def _put(self, follower: Follower, trial: Trial) -> float:
        waited = follower.put(trial)
        if waited:
            self._say_once(f"the sweep waits for {follower.name}, whose queue is full")
        return waited

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._show(message)


def _from_log(trial: Trial, plan: Plan) -> Trial:
    """Return a trial of the log with all its hyperparameters, for MLflow."""
    returns = trial.attributes.get("returns", [])
    metrics = {f"return_seed_{i}": x for i, x in enumerate(returns) if x is not None}
    known = {name: trial.attributes.get(name) for name in ("std_return", "num_parameters")}
    known["mean_return"] = trial.value if trial.state == "complete" else None  # a pruned one's is a validation
    metrics |= {name: value for name, value in known.items() if value is not None}
    whole = set(trial.params) == set(plan.space.searched)
    hyperparams = plan.space.hyperparams(trial.params)._asdict() if whole else trial.params
    return trial._replace(detail=TrialDetail(hyperparams, metrics, _validations(trial)))


def _validations(trial: Trial) -> list[Metric]:
    """Return the mean validation return of a trial's agents at each rung."""
    return [Metric("validation_return", value, step) for step, value in trial.intermediate.items()]


def _detail(event: TrialEnded, trial: Trial, config: Config) -> TrialDetail:
    """Return what MLflow is told of a trial that was trained here."""
    metrics = {"mean_return": event.mean_return, "std_return": event.std_return}
    metrics |= {name: trial.attributes[name] for name in ("num_parameters",) if name in trial.attributes}
    curve = _validations(trial)
    for agent in event.agents:
        seed = "" if len(event.agents) == 1 else f"_seed_{agent.seed_index}"
        metrics[f"return_seed_{agent.seed_index}"] = agent.mean_return
        curve += _curve(agent, seed, config)
    return TrialDetail(event.hyperparams._asdict(), metrics, curve)


def _curve(agent: Agent, seed: str, config: Config) -> list[Metric]:
    points = [
        Metric(f"{name}{seed}", value, point.step)
        for point in agent.curve
        for name, value in (
            ("training_return", point.mean_return),
            ("loss", point.loss),
            ("epsilon", point.epsilon),
        )
    ]
    if not seed:
        return points  # the trial's validations are its own
    rungs = zip(config.rungs, agent.validation, strict=False)
    return points + [Metric(f"validation_return{seed}", float(value), rung) for rung, value in rungs]
