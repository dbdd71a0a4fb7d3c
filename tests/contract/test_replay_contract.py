"""What every replay does alike: one shard or three, in this process or behind gRPC."""

import json
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from replay_server import (
    ConfigError,
    Field,
    InvalidRecord,
    RateLimiter,
    RecordSpec,
    ReplayTimeout,
    StaleEpoch,
    connect,
    importance_weights,
    in_process,
    start_server,
)
from replay_server.client import ReplayClient
from replay_server.local import LocalShard
from replay_server.shard import Shard
from replay_server.table import Table

SPEC = RecordSpec((Field("number", "int64"), Field("vector", "float32", (5,))), {"gamma": "0.99"})

QUEUE = {"limiter": RateLimiter.queue(300), "sampler": "fifo", "max_times_sampled": 1}


def rows(numbers):
    numbers = np.asarray(numbers, np.int64)
    return {"number": numbers, "vector": np.repeat(numbers[:, None], 5, axis=1).astype(np.float32)}


class Setup:
    """Makes replays of one kind and ends them."""

    def __init__(self, kind, directory):
        self.place, shards = kind.split("-")
        self.shards = int(shards)
        self.directory = directory
        self._open = []

    def make(self, capacity=1000, limiter=None, prefetch=0, seed=5, **settings):
        """A replay whose shards hold `capacity` each."""
        if self.place == "local":
            shards = [
                Shard(Table(SPEC, capacity, seed=i, shard=i, incarnation=50 + i, **settings), limiter)
                for i in range(self.shards)
            ]
            self.tables = [shard.table for shard in shards]
            self.replay = ReplayClient([LocalShard(shard) for shard in shards], prefetch=prefetch, seed=seed)
        else:
            servers = [
                start_server(
                    SPEC,
                    capacity,
                    seed=i,
                    shard_index=i,
                    rate_limiter=limiter,
                    directory=str(self.directory),
                    **settings,
                )
                for i in range(self.shards)
            ]
            self.tables = [server.shard.table for server in servers]
            self.addresses = [server.address for server in servers]
            self._open += servers
            self.replay = connect(self.addresses, spec=SPEC, transport=self.place, prefetch=prefetch, seed=seed)
        self._open.insert(0, self.replay)
        return self.replay

    def close(self):
        for opened in self._open:
            opened.stop(0.1) if hasattr(opened, "stop") else opened.close()
        for table in getattr(self, "tables", []):
            table.check_valid()


@pytest.fixture(params=["local-1", "local-3", "grpc-1", "grpc-2", "shm-1"])
def setup(request, tmp_path):
    made = Setup(request.param, tmp_path)
    yield made
    made.close()


class TestReplayContract:
    def test_what_was_inserted_is_sampled_with_its_values(self, setup):
        replay = setup.make()
        for start in range(0, 120, 10):
            ack = replay.insert(rows(range(start, start + 10)))
            assert (ack.accepted, ack.duplicates, ack.unknown) == (10, 0, 0)
        seen = set()
        for _ in range(40):
            batch = replay.sample(64)
            numbers = batch.columns["number"]
            np.testing.assert_array_equal(batch.columns["vector"], np.repeat(numbers[:, None], 5, 1).astype("f4"))
            assert batch.records.shape == (64, SPEC.record_size)
            assert batch.records.flags.c_contiguous
            assert len(batch.keys) == len(batch.probabilities) == len(batch) == 64
            seen.update(numbers.tolist())
        assert seen == set(range(120))
        assert (batch.table_size, batch.inserted) == (120, 120)

    def test_packed_records_are_taken_as_columns_are(self, setup):
        replay = setup.make()
        replay.insert(SPEC.pack(rows([7, 7, 7])), np.array([1.0, 2.0, 3.0]))
        assert set(replay.sample(8).columns["number"].tolist()) == {7}

    def test_probabilities_are_those_of_one_large_table(self, setup):
        replay = setup.make()
        priorities = np.random.default_rng(0).random(90) * 3
        for start in range(0, 90, 9):
            part = slice(start, start + 9)
            replay.insert(rows(range(start, start + 9)), priorities[part])
        exact = priorities**0.6 / (priorities**0.6).sum()
        for _ in range(5):
            batch = replay.sample(50)
            np.testing.assert_allclose(batch.probabilities, exact[batch.columns["number"]], rtol=1e-9)
        weights = importance_weights(batch, 1.0)
        assert weights.max() == 1.0
        assert replay.share_deviation < 1e-9

    def test_updates_ride_with_the_next_sample(self, setup):
        replay = setup.make()
        for start in range(0, 30, 5):
            replay.insert(rows(range(start, start + 5)))
        for _ in range(30):
            batch = replay.sample(32)
            replay.update_priorities(batch.keys, np.where(batch.columns["number"] == 17, 4.0, 0.0))
        batch = replay.sample(32)
        assert set(batch.columns["number"].tolist()) == {17}
        report = replay.flush()
        assert (report.applied, report.stale) == (30 * 32, 0)
        assert replay.flush().applied == 0

    def test_updates_are_sent_by_flush_too(self, setup):
        replay = setup.make()
        replay.insert(rows(range(10)))
        keys = replay.sample(200).keys
        replay.update_priorities(keys, np.zeros(200))
        assert replay.flush().applied == 200
        with pytest.raises(ReplayTimeout, match="priority zero") as caught:
            replay.sample(4, timeout_s=0.1)
        assert caught.value.blocked_on == "inserts"

    def test_updates_of_overwritten_or_cleared_records_change_nothing(self, setup):
        replay = setup.make(capacity=20)
        for _ in range(setup.shards):
            replay.insert(rows(range(20)))
        keys = replay.sample(100).keys
        for _ in range(setup.shards):
            replay.insert(rows(range(100, 120)))
        mass = replay.stats().shards[0].priority_mass
        replay.update_priorities(keys, np.full(100, 1000.0))
        assert replay.flush().stale == 100
        keys = replay.sample(100).keys
        replay.clear()
        for _ in range(setup.shards):
            replay.insert(rows(range(20)))
        replay.update_priorities(keys, np.full(100, 1000.0))
        assert replay.flush().stale == 100
        assert replay.stats().shards[0].priority_mass == mass

    def test_a_key_of_an_unknown_shard_is_stale(self, setup):
        replay = setup.make()
        replay.insert(rows(range(5)))
        keys = replay.sample(4).keys.copy()
        keys["shard"] = 77
        replay.update_priorities(keys, np.ones(4))
        assert replay.flush().stale == 4

    @pytest.mark.parametrize("priority", [np.nan, np.inf, -1.0, 1e200])
    def test_bad_priorities_are_refused(self, setup, priority):
        replay = setup.make()
        with pytest.raises(InvalidRecord):
            replay.insert(rows([1, 2]), np.array([1.0, priority]))
        assert replay.stats().size == 0
        for _ in range(setup.shards):
            replay.insert(rows([1, 2]))
        keys = replay.sample(4).keys
        with pytest.raises(InvalidRecord):
            replay.update_priorities(keys, np.array([1.0, 1.0, 1.0, priority]))
        with pytest.raises(InvalidRecord):
            replay.update_priorities(keys, np.ones(3))
        with pytest.raises(InvalidRecord):
            replay.update_priorities(np.arange(4), np.ones(4))
        assert replay.flush().applied == 0

    def test_bad_rows_are_refused_and_nothing_is_stored(self, setup):
        replay = setup.make()
        nan = rows([1, 2, 3])
        nan["vector"][1, 2] = np.nan
        for bad in (nan, {"number": np.zeros(2, np.int64)}, np.zeros((2, 3), np.uint8)):
            with pytest.raises(InvalidRecord):
                replay.insert(bad)
        assert replay.stats().inserted == 0
        assert replay.insert(rows([1])).accepted == 1

    @pytest.mark.parametrize("queue", [False, True])
    def test_bad_batch_sizes_are_refused_and_change_nothing(self, setup, queue):
        replay = setup.make(**(QUEUE if queue else {}))
        replay.insert(rows(range(4)))
        replay.sample(1)
        before, sampled = replay.state_dict(), replay.stats().sampled
        for size in (0, -1, 1.0, 1.5, "a", None):
            with pytest.raises(InvalidRecord, match="batch size is"):
                replay.sample(size)
        assert replay.state_dict() == before
        assert replay.stats().sampled == sampled
        assert len(replay.sample(np.int64(1))) == 1

    def test_sampling_waits_for_min_size_and_says_so(self, setup):
        replay = setup.make(limiter=RateLimiter(10))
        replay.insert(rows(range(9)))
        for timeout_s in (0.0, 0.2):
            with pytest.raises(ReplayTimeout) as caught:
                replay.sample(4, timeout_s=timeout_s)
            assert caught.value.blocked_on in ("min_size", "reply")
        assert caught.value.blocked_on == "min_size"
        for _ in range(setup.shards):
            replay.insert(rows(range(10)))
        assert len(replay.sample(4)) == 4

    def test_the_rate_limiter_blocks_both_sides_and_says_so(self, setup):
        replay = setup.make(limiter=RateLimiter(10, 4.0, 8.0))
        inserted = 0
        with pytest.raises(ReplayTimeout) as caught:
            while True:
                inserted += replay.insert(rows(range(5)), timeout_s=1.0).accepted
        assert caught.value.blocked_on == "samples"
        assert inserted <= setup.shards * 20
        batches = 0
        with pytest.raises(ReplayTimeout) as caught:
            while True:
                replay.sample(6, timeout_s=1.0)
                batches += 1
        assert caught.value.blocked_on in ("inserts", "min_size")
        assert batches > 0
        stats = replay.stats()
        assert stats.inserted == inserted
        assert abs(4.0 * (inserted - 10 * setup.shards) - stats.sampled) <= setup.shards * (8.0 + 20.0) + 6
        for _ in range(setup.shards):
            replay.insert(rows(range(5)))
        assert len(replay.sample(6)) == 6

    def test_a_newer_epoch_of_a_writer_fences_the_older(self, setup):
        replay = setup.make()
        old = replay.writer(writer_id=3, epoch=1)
        old.append(rows([1, 2]))
        assert old.flush().accepted == 2
        new = replay.writer(writer_id=3, epoch=2)
        new.append(rows([3]))
        assert new.flush().accepted == 1
        with pytest.raises(StaleEpoch):
            old.append(rows([4, 5]))
            old.flush()
        stats = replay.stats()
        assert stats.size == 3
        assert sum(s.fenced for s in stats.shards) == 2

    def test_a_writer_keeps_to_its_shard(self, setup):
        replay = setup.make()
        for shard in range(setup.shards):
            with replay.writer(writer_id=shard, shard=shard) as writer:
                for start in range(0, 100, 10):
                    writer.append(rows(range(start, start + 10)), np.ones(10))
                assert writer.flush().accepted == 100
                assert writer.shard == shard
        assert [s.size for s in replay.stats().shards] == [100] * setup.shards
        chosen = {replay.writer(writer_id=i).shard for i in range(40)}
        assert chosen == set(range(setup.shards))
        assert replay.writer(writer_id=9).shard == replay.writer(writer_id=9, epoch=4).shard
        with pytest.raises(ConfigError):
            replay.writer(shard=setup.shards)

    @pytest.mark.parametrize("prefetch", [1, 2, 8])
    def test_prefetched_batches_are_right_too(self, setup, prefetch):
        replay = setup.make(prefetch=prefetch)
        for start in range(0, 60, 10):
            replay.insert(rows(range(start, start + 10)))
        for size in (16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 5, 5, 16):
            batch = replay.sample(size)
            assert len(batch) == size
            np.testing.assert_allclose(batch.probabilities, 1 / 60, rtol=1e-9)
            replay.update_priorities(batch.keys, np.ones(size))
        assert replay.flush().stale == 0

    def test_unread_batches_are_given_back_at_close(self, setup):
        replay = setup.make(limiter=RateLimiter(1, 100.0, 1e6), prefetch=8)
        for _ in range(setup.shards):
            replay.insert(rows(range(50)))
        for _ in range(5):
            replay.sample(16)
        if setup.place == "local":
            replay.close()
            after = replay.stats()
        else:
            with connect(setup.addresses, prefetch=0) as other:
                replay.close()
                after = other.stats()
        assert after.sampled == pytest.approx(5 * 16)

    def test_a_sample_that_timed_out_is_continued(self, setup):
        replay = setup.make(limiter=RateLimiter(2, 1.0, 4.0), prefetch=2)
        for _ in range(setup.shards):
            replay.insert(rows(range(4)))
        drawn = 0
        with pytest.raises(ReplayTimeout):
            while True:
                replay.sample(8, timeout_s=0.1)
                drawn += 1
        for _ in range(6):
            with replay.writer() as writer:
                try:
                    writer.append(rows(range(4)), timeout_s=0.1)
                except ReplayTimeout:
                    continue
            try:
                batch = replay.sample(8, timeout_s=0.3)
            except ReplayTimeout:
                continue
            assert len(batch) == 8
            drawn += 1
        assert drawn >= 1

    def test_of_a_queue_every_record_comes_once_and_in_turn(self, setup):
        replay = setup.make(limiter=RateLimiter.queue(300), prefetch=8, sampler="fifo", max_times_sampled=1)
        given = [list(range(100 * i, 100 * i + 60)) for i in range(setup.shards)]
        for index, numbers in enumerate(given):
            with replay.writer(shard=index) as writer:
                writer.append(rows(numbers))
        taken = []
        for size in (20, 7, 30, 60 * setup.shards - 57):
            batch = replay.sample(size)
            taken += batch.columns["number"].tolist()
            stats = replay.stats()
            assert (stats.sampled, stats.size) == (len(taken), 60 * setup.shards - len(taken))
        for index, numbers in enumerate(given):
            assert [n for n in taken if n // 100 == index] == numbers
        with pytest.raises(ReplayTimeout) as caught:
            replay.sample(5, timeout_s=0.4)
        assert caught.value.blocked_on == "inserts"
        replay.insert(rows(range(1000, 1005)))
        assert replay.sample(5).columns["number"].tolist() == list(range(1000, 1005))

    @pytest.mark.parametrize("held", [0, 3])
    def test_a_queue_that_can_serve_nothing_waits_for_inserts(self, setup, held):
        """It is empty, or all it holds has priority zero."""
        replay = setup.make(**QUEUE)
        if held:
            replay.insert(rows(range(held)), np.zeros(held))
        with pytest.raises(ReplayTimeout, match="waits for more inserts") as caught:
            replay.sample(1, timeout_s=0.4)
        assert caught.value.blocked_on == "inserts"

    def test_two_clients_of_one_seed_are_two_writers(self, setup):
        """One seed makes the same choices; the records of the second must not pass for repeats of the first one's."""
        replay = setup.make(seed=7)
        if setup.place == "local":
            pytest.skip("shards of this process have one client")
        with connect(setup.addresses, transport=setup.place, seed=7) as other:
            acks = [client.insert(rows([1, 2, 3])) for client in (replay, other, replay, other)]
        assert [(ack.accepted, ack.duplicates) for ack in acks] == [(3, 0)] * 4
        assert replay.stats().inserted == 12

    def test_clear_removes_everything(self, setup):
        replay = setup.make()
        replay.insert(rows(range(10)))
        replay.sample(4)
        replay.clear()
        assert replay.stats().size == 0
        with pytest.raises(ReplayTimeout):
            replay.sample(4, timeout_s=0.05)
        replay.insert(rows([5]))
        assert set(replay.sample(4).columns["number"].tolist()) == {5}

    def test_save_writes_one_file_a_shard(self, setup):
        replay = setup.make()
        replay.insert(rows(range(10)))
        target = setup.directory / "checkpoints" / "12"
        names = replay.save(str(target))
        assert sorted(names) == [f"replay-{i}.h5" for i in range(setup.shards)]
        assert sorted(p.name for p in target.iterdir()) == sorted(names)

    def test_a_save_that_is_begun_holds_what_was_there_at_that_moment(self, setup):
        replay = setup.make(prefetch=2)
        replay.insert(rows(range(10)))
        replay.update_priorities((batch := replay.sample(64)).keys, 1.0 + batch.columns["number"])
        replay.flush()
        target = setup.directory / "checkpoints" / "12"
        replay.begin_save(str(target))
        replay.insert(rows(range(10, 30)))
        replay.update_priorities(batch.keys, np.full(64, 50.0))
        replay.flush()
        deadline = time.monotonic() + 60.0
        while not all(file.done for file in replay.saved(str(target))):
            assert time.monotonic() < deadline
        numbers, priorities, sampled = [], [], 0.0
        for shard, file in enumerate(replay.saved(str(target))):
            path = target / f"replay-{shard}.h5"
            assert (Path(file.path), file.bytes) == (path.resolve(), path.stat().st_size)
            assert file.checksum == int.from_bytes(path.read_bytes()[-4:], "little")
            assert b"".join(replay.read_saved(shard, str(target))) == path.read_bytes()
            with h5py.File(path) as content:
                numbers += content["columns/number"][()].tolist()
                priorities += content["priorities"][()].tolist()
                sampled += content.attrs["sampled"]
            replay.drop_saved(shard, str(target))
            assert not path.exists()
        assert sorted(numbers) == list(range(10))
        drawn = set(batch.columns["number"].tolist())
        assert dict(zip(numbers, priorities, strict=True)) == {n: 1.0 + n * (n in drawn) for n in range(10)}
        assert sampled == pytest.approx(64.0)  # what was asked ahead has been given back

    def test_stats(self, setup):
        replay = setup.make(capacity=100)
        replay.insert(rows(range(10)))
        replay.sample(7)
        stats = replay.stats()
        assert (stats.size, stats.capacity, stats.inserted) == (10, 100 * setup.shards, 10)
        assert stats.sampled == pytest.approx(7)
        assert stats.share_deviation == pytest.approx(0.0)
        assert [shard.state for shard in stats.shards] == ["serving"] * setup.shards
        assert stats.transport == ("in-process" if setup.place == "local" else setup.place)
        assert len(stats.shards) == setup.shards

    def test_the_same_seed_draws_the_same_and_state_continues_it(self, setup):
        digests = []
        for interrupted in (False, True):
            replay = setup.make(seed=11)
            for start in range(0, 60, 10):
                replay.insert(rows(range(start, start + 10)))
            draws = []
            for step in range(12):
                batch = replay.sample(16)
                draws.append(batch.columns["number"].tolist())
                replay.update_priorities(batch.keys, 1.0 + batch.columns["number"] % 5)
                if interrupted and step == 6:
                    state = json.loads(json.dumps(replay.state_dict()))
                    replay.load_state_dict(state)
            digests.append(draws)
        assert digests[0] == digests[1]


def test_state_continues_in_another_client():
    """A second client with the first one's state draws what the first one would have drawn."""
    draws = []
    for handed_over in (False, True):
        shards = [Shard(Table(SPEC, 100, seed=i, shard=i)) for i in range(3)]
        replay = in_process(shards, seed=1)
        for start in range(0, 60, 10):
            replay.insert(rows(range(start, start + 10)))
        batch = replay.sample(16)
        replay.update_priorities(batch.keys, 1.0 + batch.columns["number"] % 5)
        if handed_over:
            state = json.loads(json.dumps(replay.state_dict()))
            replay = in_process(shards, seed=99)
            replay.load_state_dict(state)
        replay.insert(rows(range(100, 105)))
        draws.append([replay.sample(16).columns["number"].tolist() for _ in range(5)])
        assert replay.stats().inserted == 65
    assert draws[0] == draws[1]


def test_shards_of_one_index_or_of_other_records_are_refused():
    shards = [Shard(Table(SPEC, 10, shard=0)), Shard(Table(SPEC, 10, shard=0))]
    with pytest.raises(ConfigError, match="not all different"):
        in_process(shards)
    with pytest.raises(ConfigError, match="at least one shard"):
        in_process([])
