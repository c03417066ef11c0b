"""What a log holds of a study and its trials, for whoever writes it and whoever reads it."""

from __future__ import annotations

from typing import Any

from optuna.trial import FrozenTrial, TrialState

from jaxdqn.follower import Trial

# Attributes of the study.
IDENTITY, LOG_ID, DESCRIPTION = "jaxdqn_identity", "jaxdqn_log", "jaxdqn_sweep"
RETRAINED = "jaxdqn_agent_"  # + phase, trial and seed index: what became of an agent that was trained anew
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


def recorded(attributes: dict[str, Any], phase: str) -> dict[tuple[int, int], dict[str, Any]]:
    """Return the results of agents that are among a study's attributes, by trial and seed index."""
    prefix, found = f"{RETRAINED}{phase}_", {}
    for key, result in attributes.items():
        if key.startswith(prefix):
            number, seed_index = map(int, key.removeprefix(prefix).split("_"))
            found[number, seed_index] = result
    return found


def as_trial(trial: FrozenTrial) -> Trial:
    """Return one of Optuna's trials as ours."""
    return Trial(
        number=trial.number,
        state=_STATES[trial.state],
        value=trial.values[0] if trial.values else None,
        params=trial.params,
        attributes=trial.user_attrs,
        intermediate=trial.intermediate_values,
        started=trial.datetime_start,
        ended=trial.datetime_complete,
    )
