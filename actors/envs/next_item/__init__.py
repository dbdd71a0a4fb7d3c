"""NextItem: a user wanders from topic to topic and consumes; one item at a time is recommended beside that."""

from actors.envs.next_item.environment import NextItemEnv, NextItemVectorEnv
from actors.envs.next_item.model import NextItemModel
from actors.envs.next_item.simulation import NextItem

__all__ = ["NextItem", "NextItemEnv", "NextItemModel", "NextItemVectorEnv"]
