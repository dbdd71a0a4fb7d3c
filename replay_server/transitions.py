"""The record every learner understands: one n-step transition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from replay_server.specs import Field, RecordSpec


def transition_spec(
    observation: tuple[str, tuple[int, ...]],
    action: tuple[str, tuple[int, ...]],
    semantics: Mapping[str, str],
    further: Sequence[Field] = (),
) -> RecordSpec:
    """Spec of one n-step transition.

    `discount` is gamma^n x (1 - terminated): 0 only after a true terminal state, so a truncated episode bootstraps
    from `next_observation`, its true final observation.

    Args:
        observation: dtype and shape of one observation.
        action: dtype and shape of one action.
        semantics: what the numbers mean (`gamma`, `n_step`, `reward_scale`), see RecordSpec.
        further: columns of the algorithm's own, after all others.
    """
    return RecordSpec(
        (
            Field("observation", *observation),
            Field("next_observation", *observation),
            Field("action", *action),
            Field("reward", "float32"),
            Field("discount", "float32"),
            Field("behaviour_log_prob", "float32"),
            Field("policy_version", "int64"),
            *further,
        ),
        semantics,
    )
