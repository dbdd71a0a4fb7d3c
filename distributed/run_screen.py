"""One run's state as text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distributed.status_screen import WAITS, duration

ENDED = ("done", "interrupted", "failed")
_BAR = 20
_MOST = 8
"""Processes of a role that are shown one by one."""
_QUIET_SECONDS = 5.0
"""An actor that has not reported for so long is worth a line."""
_STALE_SECONDS = 30.0
_ACTORS_WAIT = {
    "samples": "wait for the learner",
    "shard": "cannot reach their shard",
    "disk": "wait for their shard's disk",
    "snapshot": "wait for a snapshot",
    "bytes": "wait for replies under way",
    "weights": "wait for newer weights",
}
_MANY = {
    "starts": "start or wait for room",
    "begins": "begin",
    "restarts": "wait for their restart",
    "serves": "serve",
}
_LEARNER_WAITS = {
    "min_size": "waits for the first records (replay.min_size)",
    "inserts": "waits for the actors",
    "shard": "reaches no shard",
    "bytes": "waits for replies under way",
}


def print_run(document: Mapping[str, Any]) -> None:
    """Print a block of lines, coloured on a terminal.

    Args:
        document: as `status.py` makes it: a run's `status.json` with what is known beside it.
    """
    console = Console(highlight=False)
    console.print(f"[bold]run {escape(document['run'])}[/bold]  {_state(document)}", soft_wrap=True)
    console.print(f"  {escape(document['directory'])}", soft_wrap=True)
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows(document):
        grid.add_row(f"  {name}", text)
    console.print(grid)
    console.print()


def rows(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(what, text with rich's markup) of every line below the head."""
    if document["advice"] is not None:
        yield "to do", f"[yellow]{escape(document['advice'])}[/yellow]"
    if document["looked"] is None:  # it never came as far as to know anything
        return
    yield "progress", _progress(document)
    if document["lives"]:
        if document["bound_by"] is not None:
            yield "bound by", _bound_by(document)
        yield from _people(document)
    yield "policy", _policy(document)
    yield "checkpoint", _checkpoint(document)
    yield "trouble", _trouble(document)


def _state(document: Mapping[str, Any]) -> str:
    state, driver = document["state"], document["driver"]
    where = f"process {driver['pid']} on {escape(driver['host'])}"
    if state in ENDED:
        colour = {"done": "green", "interrupted": "yellow", "failed": "red"}[state]
        error = f": {escape(document['error'])}" if document["error"] else ""
        return f"[{colour}]{state}[/{colour}] {duration(document['age'])} ago{error}"
    if not document["lives"]:
        return f"[red]no sign of life for {duration(document['age'])}[/red]: it was {state}, as {where}"
    stale = document["now"] - (document["looked"] or document["started"])
    late = f", has not looked around for {duration(stale)}" if state == "training" and stale > _STALE_SECONDS else ""
    return f"[green]{state}[/green] for {duration(document['now'] - document['since'])}, as {where}{late}"


def _progress(document: Mapping[str, Any]) -> str:
    clock = "updates" if document["offline"] else "env steps"
    steps, total, speed = document["env_steps"], document["total_env_steps"], document["per_second"]
    share = min(max(steps / total, document["seconds"] / (document["max_seconds"] or float("inf"))), 1.0)
    bar = "█" * round(share * _BAR) + "░" * (_BAR - round(share * _BAR))
    text = f"{bar} {steps:,} of {total:,} {clock} ({share:.0%})"
    if not document["offline"]:
        text += f"{_rate(speed['env_steps'])}; {document['updates']:,} updates"
    text += f"{_rate(speed['updates'])}; {duration(document['seconds'])}"
    text += f" of {duration(document['max_seconds'])}" if document["max_seconds"] is not None else " of training"
    if document["skipped_updates"]:
        text += f"; [yellow]{document['skipped_updates']:,} updates skipped, which were not finite[/yellow]"
    return text


def _rate(value: float | None) -> str:
    return "" if value is None else f", {value:,.0f}/s"


def _bound_by(document: Mapping[str, Any]) -> str:
    waits = f"the learner waits {document['learner_waiting']:.0%} of its time"
    if not document["offline"]:
        waits = f"actors wait {document['actors_blocked']:.0%} of theirs, {waits}"
    return f"[bold]{document['bound_by']}[/bold]: {waits}"


def _people(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    workers = document["workers"]
    if actors := workers["actor"]:
        yield "actors", _summary(f"{len(actors):,}", actors, _acting)
        yield from _odd([actor for actor in actors if _acting(actor) != "act"], document["weights_version"])
    yield "learner", _learners(workers["learner"])
    shards = workers["shard"]
    yield "shards", _summary(f"{len(shards):,}", shards, lambda shard: _plural(shard["stage"]))
    for shard in shards[:_MOST]:
        yield "", _shard(shard)
    if len(shards) > _MOST:
        yield "", f"and {len(shards) - _MOST:,} more (--json shows all)"
    for role in ("evaluator", "store"):
        for worker in workers[role]:
            if worker["stage"] not in ("idle", "serves") or worker["restarts"]:
                yield role, _stage(worker) + (f", {_restarted(worker)}" if worker["restarts"] else "")


def _acting(actor: Mapping[str, Any]) -> str:
    if actor["stage"] != "acts":
        return _plural(actor["stage"])
    if actor["silent"] > _QUIET_SECONDS:
        return "have not reported for a while"
    blocked = actor.get("blocked_on")
    return "act" if blocked is None else _ACTORS_WAIT.get(blocked, f"wait for {blocked}")


def _plural(stage: str) -> str:
    return _MANY.get(stage, stage)


def _summary(count: str, workers: list[dict[str, Any]], sort: Any) -> str:
    kinds = Counter(sort(worker) for worker in workers)
    return f"{count}: " + ", ".join(f"{number:,} {escape(kind)}" for kind, number in kinds.most_common())


def _odd(actors: list[dict[str, Any]], version: int) -> Iterator[tuple[str, str]]:
    """Those that are in trouble before those that wait; waiting for the learner is nothing to look at one by one."""
    actors = [actor for actor in actors if _acting(actor) != _ACTORS_WAIT["samples"]]
    actors.sort(key=lambda actor: (actor["stage"] == "acts", -actor["restarts"], -actor["silent"]))
    for actor in actors[:_MOST]:
        yield "", _actor(actor, version)
    if len(actors) > _MOST:
        yield "", f"and {len(actors) - _MOST:,} more like these (--json shows all)"


def _actor(actor: Mapping[str, Any], version: int) -> str:
    text = f"actor {actor['index']} {_stage(actor)}"
    if actor["stage"] == "acts" and actor.get("blocked_on") is not None:
        text += f", blocked on {actor['blocked_on']}"
    if actor["stage"] == "acts" and actor["silent"] > _QUIET_SECONDS:
        text += f", has not reported for {duration(actor['silent'])}"
    if actor.get("weights_version"):
        text += f", {max(version - actor['weights_version'], 0)} versions behind"
    if actor["restarts"]:
        text += f", {_restarted(actor)}"
    return text + (f": [yellow]{escape(actor['error'])}[/yellow]" if "error" in actor else "")


def _stage(worker: Mapping[str, Any]) -> str:
    colour = {"quarantined": "red", "unreachable": "red", "restarts": "yellow"}.get(worker["stage"])
    return f"[{colour}]{worker['stage']}[/{colour}]" if colour else str(worker["stage"])


def _restarted(worker: Mapping[str, Any]) -> str:
    times = worker["restarts"]
    return "restarted once" if times == 1 else f"restarted {times:,} times"


def _learners(learners: list[dict[str, Any]]) -> str:
    parts = []
    for learner in learners:
        blocked = learner.get("blocked_on") if learner["stage"] == "learns" else None
        text = _stage(learner) if blocked is None else _LEARNER_WAITS.get(blocked, f"waits for {blocked}")
        if learner["silent"] > _QUIET_SECONDS:
            text += f", has not reported for {duration(learner['silent'])}"
        if learner["restarts"]:
            text += f", {_restarted(learner)}"
            text += f", the last for: [yellow]{escape(learner['error'])}[/yellow]" if "error" in learner else ""
        parts.append(text if len(learners) == 1 else f"{learner['index']} {text}")
    return "; ".join(parts)


def _shard(shard: Mapping[str, Any]) -> str:
    text = f"shard {shard['index']} {_stage(shard)}"
    if shard.get("address") not in (None, "", "in process"):
        text += f" at {escape(shard['address'])}"
    if "capacity" in shard:
        text += (
            f": {shard['size']:,} of {shard['capacity']:,} ({shard['size'] / shard['capacity']:.0%})"
            + f"{_rate(shard['inserted_per_second'])} in{_rate(shard['drawn_per_second'])} out"
        )
    if shard.get("blocked_on") is not None:
        text += f"; {escape(WAITS.get(shard['blocked_on'], shard['blocked_on']))}"
    if shard["restarts"]:
        text += f"; {_restarted(shard)}"
    return text + (f"; [yellow]{escape(shard['error'])}[/yellow]" if "error" in shard else "")


def _policy(document: Mapping[str, Any]) -> str:
    text = f"version {document['weights_version']:,}"
    if document["staleness"] is not None:
        text += f", actors {document['staleness']:.1f} versions behind"
    if document["train_return"] is not None:
        text += f"; return {document['train_return']:.1f} in training"
    evaluation = document["evaluation"]
    if evaluation is not None:
        text += f", {evaluation['mean']:.1f} in the evaluation at {evaluation['env_steps']:,}"
    final = (document["result"] or {}).get("evaluation")
    if final is not None:
        text += (
            f", [bold]{final['mean']:.1f} +- {final['sem']:.1f}[/bold] over the final {final['episodes']:,} episodes"
        )
    return text


def _checkpoint(document: Mapping[str, Any]) -> str:
    checkpoint = document["checkpoint"]
    if checkpoint["env_steps"] is None:
        text = "none yet"
    else:
        text = f"at {checkpoint['env_steps']:,}"
        text += f", {duration(document['now'] - checkpoint['at'])} old" if checkpoint["at"] is not None else ""
        text += f", took {checkpoint['seconds']:.1f} s" if checkpoint["seconds"] is not None else ""
    if checkpoint["under_way"] and document["state"] not in ENDED:
        text += "; one is under way"
    if checkpoint["given_up"]:
        text += f"; [yellow]{checkpoint['given_up']:,} given up[/yellow]"
    return text


def _trouble(document: Mapping[str, Any]) -> str:
    roles = {role: count for role, count in document["restarts_by_role"].items() if count}
    restarts = f"restarts: {document['restarts']:,}" + (f" ({_by_role(roles)})" if roles else "")
    counts = [restarts] * bool(document["restarts"])
    for name, words in (("lost_transitions", "transitions lost"), ("quarantined_actors", "actors quarantined")):
        counts += [f"{document[name]:,} {words}"] * bool(document[name])
    return f"[yellow]{', '.join(counts)}[/yellow]" if counts else "none"


def _by_role(roles: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {role}" for role, count in roles.items())
