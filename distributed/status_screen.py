"""One shard's state as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape

from replay_server.rates import Rates, rates
from replay_server.replay import JournalStats, ShardStats

_BAR = 24
WAITS = {
    "min_size": "sampling waits: fewer than min_size records are in the table yet",
    "inserts": "sampling waits for inserts: the learner is ahead of the writers",
    "samples": "inserting waits for samples: the writers are ahead of the learner",
    "snapshot": "inserting waits for a snapshot to be written",
    "bytes": "calls wait until replies under way have left",
    "disk": "inserting waits: the journal's disk is full or slow",
}


def print_shard(address: str, before: ShardStats, after: ShardStats) -> None:
    """Print a block of lines, coloured on a terminal."""
    console = Console(highlight=False, soft_wrap=True)
    for line in lines(address, before, after):
        console.print(line)
    console.print()


def lines(address: str, before: ShardStats, after: ShardStats) -> Iterator[str]:
    """The block, with rich's markup.

    Args:
        address: as the user gave it.
        before, after: two looks at the shard.
    """
    now = rates(before, after)
    yield (
        f"[bold]shard {after.shard} at {escape(address)}[/bold]  [green]{escape(after.state)}[/green] for "
        f"{duration(after.uptime_s)}, durability {escape(after.level)}"
        + (f", {after.sessions} clients by shared memory" if after.sessions else "")
    )
    fill = after.size / after.capacity
    bar = "█" * round(fill * _BAR) + "░" * (_BAR - round(fill * _BAR))
    yield _row(
        "records", f"{bar} {after.size:,} of {after.capacity:,} ({fill:.0%}), priority mass {after.priority_mass:,.6g}"
    )
    yield _row(
        "ever",
        f"{after.inserted:,} inserted, {after.sampled:,.0f} sampled"
        + (f" ({after.sampled / after.inserted:.2f} a record)" if after.inserted else ""),
    )
    yield _row("now", _speeds(now))
    yield _row("waiting", _waiting(after, now))
    if after.journal is not None:
        yield _row("journal", _journal(after.journal))
    if after.snapshots.taken:
        yield _row(
            "snapshots",
            f"{after.snapshots.taken:,} taken in {after.snapshots.seconds:.1f} s, longest pause "
            f"{after.snapshots.longest_pause_s * 1000:.1f} ms",
        )
    for name in sorted(now.median_s, key=lambda name: -now.calls[name]):
        if name in ("Insert", "Sample", "Update"):
            yield _row(
                name,
                f"{now.calls[name]:,.0f} calls/s, half within {_time(now.median_s[name])}, "
                f"99 % within {_time(now.p99_s[name])}",
            )
    if odd := _oddities(after):
        yield _row("refused", f"[yellow]{odd}[/yellow]")


def _row(name: str, text: str) -> str:
    return f"  {name:<11}{text}"


def _speeds(now: Rates) -> str:
    return (
        f"{now.inserted:,.0f} records/s in, {now.drawn:,.0f} out, {now.updated:,.0f} priorities/s; "
        f"{_size(now.bytes_in)}/s in, {_size(now.bytes_out)}/s out by gRPC"
    )


def _journal(journal: JournalStats) -> str:
    text = f"{_size(journal.bytes)}, {journal.garbage:.0%} of it dead"
    if journal.syncs:
        text += f"; written back {journal.syncs:,} times, {journal.sync_seconds / journal.syncs * 1000:.1f} ms each"
    if journal.pending_removals:
        text += f"; [red]{journal.pending_removals:,} removals wait for room on the disk[/red]"
    if journal.trouble is not None:
        text += f"; [red]{escape(journal.trouble)}[/red]"
    return text


def _waiting(after: ShardStats, now: Rates) -> str:
    if after.blocked_on is None and not any(value >= 0.005 for value in now.waiting.values()):
        return "nobody"
    parts = []
    for reason, share in sorted(now.waiting.items(), key=lambda item: -item[1]):
        if share >= 0.005 or reason == after.blocked_on:
            parts.append(f"{WAITS.get(reason, reason)} ({share:.1f} calls at a time)")
    if not parts and after.blocked_on is not None:
        parts.append(WAITS.get(after.blocked_on, after.blocked_on))
    return f"[yellow]{escape('; '.join(parts))}[/yellow]"


def _oddities(after: ShardStats) -> str:
    counts = {
        "duplicates sent again": after.duplicates,
        "records of replaced writers": after.fenced,
        "stale priorities": after.stale,
        **{f"calls: {name}": count for name, count in sorted(after.refusals.items())},
    }
    return escape(", ".join(f"{count:,} {name}" for name, count in counts.items() if count))


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds // 3600:,.0f} h {seconds % 3600 / 60:.0f} min"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "more than 1 s"
    return f"{seconds:g} s" if seconds >= 1.0 else f"{seconds * 1000:g} ms"


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"
