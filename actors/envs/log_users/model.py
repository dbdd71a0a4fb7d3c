"""Every constant of a LogUsers simulation."""

from __future__ import annotations

from dataclasses import dataclass

from actors.envs.constants import check_kinds


@dataclass(frozen=True, kw_only=True)
class LogUsersModel:
    """Who is met, what is on offer and what the agent sees.

    Attributes:
        users: "all", "fitted" (those that item factors and click model were fitted on) or "held_out".
        catalogue: the most rated items that are offered; None for all.
        candidates: items on offer at a step, drawn anew; an action is then a place among them. None offers all.
        history_length: how many of the items shown last the agent sees.
        obs_mode: how the user is shown: "factors" (float32 vector) or "ids" (int32 place in the population).
        show_user: False shows no user, only what he was shown and what he clicked.
        show_mask: True adds an `action_mask` of the items not shown yet.
    """

    users: str = "all"
    catalogue: int | None = None
    candidates: int | None = None
    history_length: int = 20
    obs_mode: str = "factors"
    show_user: bool = True
    show_mask: bool = False

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.users not in ("all", "fitted", "held_out"):
            raise ValueError(f'users is {self.users!r}, must be "all", "fitted" or "held_out"')
        if self.obs_mode not in ("factors", "ids"):
            raise ValueError(f'obs_mode is {self.obs_mode!r}, must be "factors" or "ids"')
        if self.history_length < 1:
            raise ValueError(f"history_length is {self.history_length}, must be at least 1")
        for name in ("catalogue", "candidates"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise ValueError(f"{name} is {value}, must be at least 2")
