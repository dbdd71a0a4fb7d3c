"""The memory arithmetic of a shard, and the limit it is held against."""

from pathlib import Path

import pytest

from replay_server.errors import ConfigError
from replay_server.memory import INTERPRETER_BYTES, MemoryBudget, MemoryLimit, memory_limit, size_text

GIB = 1 << 30
NO_LIMIT_V1 = "9223372036854771712\n"


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": meminfo(16 * GIB, 12 * GIB), **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def meminfo(total: int, available: int) -> str:
    return f"MemTotal:       {total // 1024} kB\nMemFree:  17 kB\nMemAvailable:   {available // 1024} kB\nHuge: 0\n"


def test_the_sum_of_all_parts_is_printed_in_one_line() -> None:
    budget = MemoryBudget(1_000_000, 80, table=35 << 20, snapshot=40 << 20, messages=64 << 20)
    assert str(budget) == (
        "1,000,000 x 80 B = 76 MiB + tree and order 35 MiB + snapshots 40 MiB + messages 64 MiB = 215 MiB"
    )
    assert budget.total == 80_000_000 + (139 << 20)
    assert "journal 2.0 MiB" in str(MemoryBudget(1, 16, 0, journal=2 << 20))


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0.0 MiB"), (1 << 20, "1.0 MiB"), (GIB, "1,024 MiB"), (3 << 40, "3,072.0 GiB")]
)
def test_sizes_are_readable(size: int, text: str) -> None:
    assert size_text(size) == text


def test_a_budget_that_fits_exactly_is_taken_and_one_byte_more_refused() -> None:
    budget = MemoryBudget(1000, 80, table=5000, snapshot=300, journal=20, messages=1)
    needed = 80_000 + 5321 + INTERPRETER_BYTES
    budget.check(MemoryLimit(needed, "a box"))
    with pytest.raises(ConfigError) as refused:
        budget.check(MemoryLimit(needed - 1, "a box"))
    text = str(refused.value)
    assert "\n" not in text
    for words in ("capacity", "1,000 x 80 B", "a box", size_text(needed - 1), "lower capacity"):
        assert words in text


def test_an_impossible_capacity_is_refused_here_and_now() -> None:
    budget = MemoryBudget(10**12, 80, table=35 * 10**12)
    with pytest.raises(ConfigError, match="capacity"):
        budget.check(memory_limit())


def test_this_machine_has_a_limit_with_a_source() -> None:
    limit = memory_limit()
    assert 0 < limit.available < 1 << 50
    assert "/" in limit.source


def test_without_a_container_the_machines_available_memory_counts(tmp_path: Path) -> None:
    limit = memory_limit(machine(tmp_path, {}))
    assert limit.available == 12 * GIB
    assert "16.0 GiB" in limit.source and "/proc/meminfo" in limit.source


def test_nothing_readable_is_no_limit(tmp_path: Path) -> None:
    MemoryBudget(10**9, 80, 0).check(memory_limit(tmp_path))


@pytest.mark.parametrize("depth", ["/", "/a", "/a/b"])
def test_a_version_2_limit_counts_wherever_above_us_it_is_set(tmp_path: Path, depth: str) -> None:
    files = {"proc/self/cgroup": "0::/a/b\n"}
    for path in ("/", "/a", "/a/b"):
        directory = f"sys/fs/cgroup{path}"
        files[f"{directory}/memory.max"] = f"{4 * GIB}\n" if path == depth else "max\n"
        files[f"{directory}/memory.current"] = f"{3 * GIB}\n"
        files[f"{directory}/memory.stat"] = f"anon 5\ninactive_file {2 * GIB}\nactive_file 7\n"
    limit = memory_limit(machine(tmp_path, files))
    assert limit.available == 3 * GIB  # the reclaimable page cache of others is ours to take
    assert "memory.max" in limit.source and "4,096 MiB" in limit.source


def test_a_version_1_limit_counts_and_the_largest_number_means_none(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/box\n1:cpu:/\n0::/\n"}
    group = "sys/fs/cgroup/memory/box"
    files["sys/fs/cgroup/memory/memory.limit_in_bytes"] = NO_LIMIT_V1
    files[f"{group}/memory.limit_in_bytes"] = f"{2 * GIB}\n"
    files[f"{group}/memory.usage_in_bytes"] = f"{GIB}\n"
    files[f"{group}/memory.stat"] = f"inactive_file 99\ntotal_inactive_file {GIB // 2}\n"
    root = machine(tmp_path, files)
    assert memory_limit(root).available == 3 * GIB // 2
    (root / group / "memory.limit_in_bytes").write_text(NO_LIMIT_V1)
    assert memory_limit(root).available == 12 * GIB


def test_a_container_that_sees_the_hosts_path_finds_its_own_mount(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/docker/0123\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "0\n",
    }
    assert memory_limit(machine(tmp_path, files)).available == GIB
    files["proc/self/cgroup"] = "0::/../../other/leaf\n"
    files["sys/fs/cgroup/memory.max"] = f"{2 * GIB}\n"
    assert memory_limit(machine(tmp_path, files)).available == 2 * GIB


def test_a_group_past_its_limit_leaves_nothing(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\nnonsense\n",
        "sys/fs/cgroup/memory.max": f"{GIB}\n",
        "sys/fs/cgroup/memory.current": f"{2 * GIB}\n",
    }
    assert memory_limit(machine(tmp_path, files)).available == 0
