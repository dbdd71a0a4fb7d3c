"""headrace's own environments; importing this package registers them with Gymnasium."""

from __future__ import annotations

import gymnasium

gymnasium.register(
    id="headrace/MoviePick10-v0",
    entry_point="actors.envs.movie_pick.environment:MoviePickEnv",
    vector_entry_point="actors.envs.movie_pick.environment:MoviePickVectorEnv",
    max_episode_steps=100,
)
gymnasium.register(
    id="headrace/NextItem-v0",
    entry_point="actors.envs.next_item.environment:NextItemEnv",
    vector_entry_point="actors.envs.next_item.environment:NextItemVectorEnv",
    max_episode_steps=30,
)
gymnasium.register(
    id="headrace/ProtoAction-v0",
    entry_point="actors.envs.proto_action.environment:ProtoActionEnv",
    vector_entry_point="actors.envs.proto_action.environment:ProtoActionVectorEnv",
    max_episode_steps=20,
)
gymnasium.register(
    id="headrace/NewsSession-v0",
    entry_point="actors.envs.news_session.environment:NewsSessionEnv",
    vector_entry_point="actors.envs.news_session.environment:NewsSessionVectorEnv",
)
gymnasium.register(
    id="headrace/LogUsers-v0",
    entry_point="actors.envs.log_users.environment:LogUsersEnv",
    vector_entry_point="actors.envs.log_users.environment:LogUsersVectorEnv",
    max_episode_steps=20,
)
gymnasium.register(
    id="headrace/SlateMNL-v0",
    entry_point="actors.envs.slate.environment:SlateEnv",
    vector_entry_point="actors.envs.slate.environment:SlateVectorEnv",
    max_episode_steps=600,
    kwargs={"choice_model": "mnl"},
)
gymnasium.register(
    id="headrace/SlateCascade-v0",
    entry_point="actors.envs.slate.environment:SlateEnv",
    vector_entry_point="actors.envs.slate.environment:SlateVectorEnv",
    max_episode_steps=600,
    kwargs={"choice_model": "exponential_cascade"},
)
gymnasium.register(
    id="headrace/TopKToy-v0",
    entry_point="actors.envs.topk_toy.environment:TopKToyEnv",
    vector_entry_point="actors.envs.topk_toy.environment:TopKToyVectorEnv",
)
