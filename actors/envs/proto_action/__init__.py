"""ProtoAction: one item a step out of a catalogue of up to a million, for users who tire of what is alike."""

from actors.envs.proto_action.environment import ProtoActionEnv, ProtoActionVectorEnv
from actors.envs.proto_action.model import ProtoActionModel
from actors.envs.proto_action.simulation import ProtoAction

__all__ = ["ProtoAction", "ProtoActionEnv", "ProtoActionModel", "ProtoActionVectorEnv"]
