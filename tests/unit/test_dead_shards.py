"""Shards that die, fall silent, come back as themselves or as somebody else, at any point of what a client does."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from replay_server import ConfigError, Field, RateLimiter, RecordSpec, ReplayTimeout, Unavailable
from replay_server.client import ReplayClient
from replay_server.local import LocalShard
from replay_server.shard import Shard
from replay_server.table import Table

SPEC = RecordSpec((Field("number", "int64"),))


def rows(numbers):
    return {"number": np.asarray(numbers, np.int64)}


class Clock:
    """Time passes only while somebody waits."""

    def __init__(self):
        self.time = 100.0

    def now(self):
        return self.time

    def sleep(self, seconds):
        assert seconds >= 0.0
        self.time += seconds


class Call:
    def __init__(self, port, run):
        self._port, self._run, self._outcome = port, run, None
        self.done()

    def done(self):
        if self._outcome is None and not self._port.stopped:
            try:
                if self._port.dead or self._port.dies():
                    raise Unavailable(f"{self._port.hello.address}: connection refused")
                self._outcome = (self._run(), None)
                if self._port.dies():
                    raise Unavailable(f"{self._port.hello.address}: stream removed")
            except Exception as error:
                self._outcome = (None, error)
        return self._outcome is not None

    def result(self, timeout_s):
        if not self.done():
            self._port.clock.sleep(timeout_s)
            if not self.done():
                raise ReplayTimeout(f"the shard at {self._port.hello.address} has not answered yet", "reply")
        value, error = self._outcome
        if error is not None:
            raise error
        return value


class FarShard(LocalShard):
    """A shard behind a network. `dies_at`: it dies at its so-many-th step, of two steps a call: before and after."""

    synchronous = False

    def __init__(self, shard, clock):
        super().__init__(shard)
        self.clock = clock
        self.dead = self.stopped = False
        self.dies_at = None
        self.steps = self.greetings = 0

    def dies(self):
        self.steps += 1
        if self.dies_at is not None and self.steps >= self.dies_at:
            self.dead, self.dies_at = True, None
        return self.dead

    def restart(self, shard):
        self._shard, self.dead = shard, False

    def insert(self, request):
        return Call(self, lambda: self._held(self._shard.insert, request))

    def sample(self, request):
        return Call(self, lambda: self._held(self._shard.sample, request))

    def _held(self, method, request):
        reply = method(replace(request, wait_s=0.0))
        if reply.blocked_on is not None:
            self.clock.sleep(request.wait_s)
        return reply

    def update(self, request):
        return Call(self, lambda: self._shard.update(request))

    def stats(self):
        return Call(self, self._shard.stats)

    def greet(self):
        self.greetings += 1
        return Call(self, lambda: LocalShard(self._shard).hello)


def make_shard(index, incarnation=1, limiter=None, spec=SPEC, capacity=10_000, **settings):
    table = Table(spec, capacity, seed=index, shard=index, incarnation=incarnation, **settings)
    return Shard(table, limiter, address=f"host:{index}")


class Fleet:
    """A client over N far shards, shard j holding 20 * (j + 1) records of priority 1."""

    def __init__(self, count=2, prefetch=4, limiter=None, fill=True, **settings):
        self.clock = Clock()
        self.shards = [make_shard(i, limiter=limiter, **settings) for i in range(count)]
        self.ports = [FarShard(shard, self.clock) for shard in self.shards]
        self.replay = ReplayClient(self.ports, prefetch=prefetch, seed=1, clock=self.clock)
        if fill:
            for index in range(count):
                with self.replay.writer(shard=index) as writer:
                    writer.append(rows(range(100 * index, 100 * index + 20 * (index + 1))))

    def pass_time(self):
        for _ in range(4):
            self.clock.sleep(0.7)
            self.replay._members.look()

    def sample_until(self, table_size, batch_size=16, tries=40):
        for _ in range(tries):
            batch = self.replay.sample(batch_size)
            if batch.table_size == table_size:
                return batch
            self.clock.sleep(0.1)
        raise AssertionError(f"no batch of a table of {table_size} in {tries} tries, the last was {batch.table_size}")


@pytest.mark.parametrize("dies_at", range(1, 24))
@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_a_shard_that_dies_at_any_point_is_left_out_of_shares_weights_and_credits(prefetch, dies_at):
    fleet = Fleet(prefetch=prefetch)
    fleet.ports[1].steps, fleet.ports[1].dies_at = 0, dies_at
    sizes = []
    for _ in range(60):
        batch = fleet.replay.sample(16)
        sizes.append(batch.table_size)
        assert len(batch) == 16
        np.testing.assert_allclose(batch.probabilities, 1.0 / batch.table_size)
        assert set(batch.keys["shard"].tolist()) <= ({0} if batch.table_size == 20 else {0, 1})
        fleet.replay.update_priorities(batch.keys, np.ones(16))
    assert sizes == sorted(sizes, reverse=True)  # with both shards first, then with one
    assert sizes[-1] == 20
    report = fleet.replay.flush()
    assert report.applied + report.stale <= 60 * 16
    fleet.replay.close()
    together, alone = sizes.count(60), sizes.count(20)
    spent = [shard.stats().sampled for shard in fleet.shards]
    assert 16 * alone - 1e-6 <= spent[0] <= 16 * (alone + together) + 1e-6
    paid_by_the_dead = 16 * together * 2 / 3
    assert spent[0] == pytest.approx(16 * (alone + together) - paid_by_the_dead, abs=16 * (2 * prefetch + 1))
    for shard in fleet.shards:
        shard.check_valid()


def test_a_silent_shard_is_left_out_after_three_seconds_and_pays_back_when_it_answers():
    fleet = Fleet(limiter=RateLimiter(1, 1000.0, 1e6))
    fleet.replay.sample(16)
    fleet.ports[1].stopped = True
    begin = fleet.clock.now()
    while fleet.replay.sample(16, timeout_s=5.0).table_size == 60:
        pass
    assert 3.0 <= fleet.clock.now() - begin <= 4.0
    assert fleet.sample_until(20)
    assert fleet.replay.stats().shards[1].state == "unreachable"
    assert "not answered" in fleet.replay.stats().shards[1].reason
    fleet.ports[1].stopped = False
    fleet.clock.sleep(2.0)
    batch = fleet.sample_until(60)
    np.testing.assert_allclose(batch.probabilities, 1 / 60)
    assert [s.state for s in fleet.replay.stats().shards] == ["serving", "serving"]
    fleet.replay.close()
    assert sum(s.stats().sampled for s in fleet.shards) % 16 == pytest.approx(0.0, abs=1e-6)


def test_a_deadline_before_the_silence_is_long_enough_is_kept_and_the_silence_still_counted():
    fleet = Fleet(prefetch=0)
    fleet.replay.sample(16)
    fleet.ports[0].stopped = True
    begin = fleet.clock.now()
    timeouts = 0
    while True:
        before = fleet.clock.now()
        try:
            fleet.replay.sample(16, timeout_s=0.3)
            break
        except ReplayTimeout as timeout:
            assert timeout.blocked_on == "reply"
            assert fleet.clock.now() - before <= 0.3 + 1e-9
            timeouts += 1
    assert timeouts >= 8
    assert fleet.clock.now() - begin < 4.5


def test_an_answer_that_is_there_when_a_stopped_client_goes_on_is_taken():
    fleet = Fleet(prefetch=0)
    fleet.replay.sample(16)
    fleet.ports[1].stopped = True
    with pytest.raises(ReplayTimeout):
        fleet.replay.sample(16, timeout_s=0.1)
    fleet.clock.sleep(60.0)  # the client was stopped, and the answer comes a moment after it goes on
    with pytest.raises(ReplayTimeout):
        fleet.replay.sample(16, timeout_s=0.1)
    fleet.ports[1].stopped = False
    assert fleet.replay.sample(16, timeout_s=0.1).table_size == 60


def test_under_a_new_incarnation_queued_updates_are_stale_and_one_shot_inserts_go_on():
    fleet = Fleet(prefetch=0)
    for _ in range(4):
        assert fleet.replay.insert(rows([1])).accepted == 1
    batch = fleet.sample_until(64, batch_size=200)
    mine = int(np.count_nonzero(batch.keys["shard"] == 1))
    fleet.ports[1].dead = True
    fleet.sample_until(22)
    fleet.replay.update_priorities(batch.keys, np.full(200, 2.0))
    assert fleet.replay.flush().applied == 200 - mine
    fleet.ports[1].restart(make_shard(1, incarnation=2))
    fleet.pass_time()
    acks = [fleet.replay.insert(rows([k])) for k in range(5)]
    assert [(a.accepted, a.unknown) for a in acks] == [(1, 0)] * 5
    assert fleet.replay._members.updates.waiting(1) == 0
    assert fleet.replay.flush().stale == mine
    assert fleet.ports[1]._shard.stats().inserted >= 2
    assert fleet.sample_until(22 + 5).inserted >= batch.inserted  # what a shard has forgotten was inserted all the same


def test_under_the_same_incarnation_queued_updates_are_applied_when_it_is_back():
    fleet = Fleet(prefetch=0)
    batch = fleet.sample_until(60, batch_size=200)
    mine = int(np.count_nonzero(batch.keys["shard"] == 1))
    fleet.ports[1].dead = True
    fleet.sample_until(20)
    fleet.replay.update_priorities(batch.keys, np.full(200, 2.0))
    assert fleet.replay.flush().applied == 200 - mine
    fleet.ports[1].dead = False
    fleet.sample_until(60)
    report = fleet.replay.flush()
    assert (report.applied, report.stale) == (mine, 0)


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (make_shard(7, incarnation=2), "serves shard 7, not 1"),
        (make_shard(1, incarnation=2, spec=RecordSpec((Field("x", "float32"),))), "holds other records"),
        (make_shard(1, incarnation=2, max_times_sampled=1), "max_times_sampled"),
    ],
)
def test_somebody_else_at_the_address_stays_out_and_is_named_until_the_shard_is_back(other, text):
    fleet = Fleet()
    fleet.ports[1].dead = True
    fleet.sample_until(20)
    fleet.ports[1].restart(other)
    for _ in range(20):
        assert fleet.replay.sample(16).table_size == 20
        fleet.clock.sleep(0.3)
    state = fleet.replay.stats().shards[1]
    assert (state.state, state.size) == ("unreachable", 0)
    assert text in state.reason
    fleet.ports[1].restart(fleet.shards[1])
    fleet.clock.sleep(2.0)
    fleet.sample_until(60)


def test_a_shard_that_is_gone_is_asked_less_and_less_often_also_when_it_flaps():
    fleet = Fleet()
    fleet.ports[1].dead = True
    fleet.sample_until(20)
    for _ in range(600):
        fleet.replay.sample(16)
        fleet.clock.sleep(0.1)
    assert 25 <= fleet.ports[1].greetings <= 40  # 0.1, 0.2, 0.4 .. then every 2 s of a minute
    fleet.ports[1].greetings = 0
    fleet.ports[1].dead = False
    fleet.ports[1].sample = lambda request: Call(fleet.ports[1], refuse)  # from now on it greets, and serves nothing
    for _ in range(600):
        fleet.replay.sample(16)
        fleet.clock.sleep(0.1)
    assert 10 <= fleet.ports[1].greetings <= 30


def refuse():
    raise Unavailable("host:1: stream removed")


def test_with_all_shards_dead_every_call_names_them_at_its_deadline_and_goes_on_when_they_are_back():
    fleet = Fleet()
    fleet.replay.sample(16)
    for port in fleet.ports:
        port.dead = True
    for call in (
        lambda: fleet.replay.sample(16, timeout_s=3.0),
        lambda: fleet.replay.insert(rows([1]), timeout_s=3.0),
        lambda: fleet.replay.flush(timeout_s=3.0),
    ):
        begin = fleet.clock.now()
        with pytest.raises(Unavailable, match=r"shard 0 at host:0 .*; shard 1 at host:1 .*refused"):
            while True:  # what was ahead may be read first, and the first inserts are unknown
                call()
        assert fleet.clock.now() - begin < 10.0
    for port in fleet.ports:
        port.dead = False
    fleet.sample_until(60)
    assert fleet.replay.insert(rows([1])).accepted == 1


def test_one_shot_inserts_leave_a_dead_shard_out_and_are_never_sent_elsewhere():
    fleet = Fleet(prefetch=0)
    fleet.ports[0].dead = True
    acks = [fleet.replay.insert(rows([500 + i]), timeout_s=0.5) for i in range(6)]
    assert [a.unknown for a in acks] == [1, 0, 0, 0, 0, 0]
    assert fleet.shards[1].stats().inserted == 40 + 5
    assert fleet.shards[0].stats().inserted == 20


def test_one_shot_inserts_leave_a_silent_shard_out():
    fleet = Fleet(prefetch=0)
    fleet.ports[0].stopped = True
    acks = [fleet.replay.insert(rows([500 + i]), timeout_s=0.5) for i in range(30)]
    assert sum(a.unknown for a in acks) <= 9
    assert [a.unknown for a in acks[-5:]] == [0] * 5
    assert fleet.replay.stats().shards[0].state == "unreachable"


def test_an_insert_finds_out_by_itself_that_its_shard_has_lost_its_memory():
    fleet = Fleet(prefetch=0)
    for _ in range(2):
        fleet.replay.insert(rows([1, 2]))
    fleet.ports[1].restart(make_shard(1, incarnation=2))
    for _ in range(4):
        assert fleet.replay.insert(rows([3, 4])).accepted == 2
    assert fleet.ports[1]._shard.stats().inserted == 4


def test_statistics_come_within_two_seconds_and_show_the_last_counters_of_a_shard_that_is_gone():
    fleet = Fleet()
    assert fleet.replay.stats().inserted == 60
    fleet.ports[0].stopped = True
    begin = fleet.clock.now()
    found = fleet.replay.stats()
    assert fleet.clock.now() - begin <= 2.0
    assert (found.inserted, found.size, found.shards[0].state) == (60, 40, "unreachable")


def test_draws_stay_those_of_one_table_while_a_shard_leaves_and_returns():
    rng = np.random.default_rng(4)
    fleet = Fleet(count=3, prefetch=4, fill=False)
    priorities = rng.random(150) * 3 + 0.05
    for index in range(3):
        mine = np.arange(50 * index, 50 * index + 50)
        with fleet.replay.writer(shard=index) as writer:
            writer.append(rows(mine), priorities[mine])
    mass = priorities**0.6
    seen = {50: np.zeros(150), 100: np.zeros(150), 150: np.zeros(150)}
    for step in range(1500):
        if step % 250 == 100:
            fleet.ports[1 + step // 250 % 2].dead = True
        if step % 250 == 130:
            fleet.ports[1].dead = fleet.ports[2].dead = False
        batch = fleet.replay.sample(64)
        here = batch.columns["number"]
        live = mass if batch.table_size == 150 else mass * np.isin(np.arange(150) // 50, [0, *np.unique(here // 50)])
        np.testing.assert_allclose(batch.probabilities, live[here] / live.sum(), rtol=1e-9)
        if batch.table_size == 150:
            seen[150] += np.bincount(here, minlength=150)
        fleet.clock.sleep(0.01)
    assert seen[150].sum() > 40_000
    assert stats.chisquare(seen[150], mass / mass.sum() * seen[150].sum()).pvalue > 0.01


def test_limiters_go_on_while_shards_come_and_go():
    """Inserts and samples at the ratio the limiters ask for, a shard away now and then: nobody gets stuck."""
    limiter = RateLimiter(10, 4.0, 60.0)
    fleet = Fleet(count=3, prefetch=2, limiter=limiter, fill=False)
    for index in range(3):
        with fleet.replay.writer(shard=index) as writer:
            writer.append(rows(range(10)))
    sampled = 0
    for step in range(2000):
        if step % 300 == 100:
            fleet.ports[step // 300 % 3].dead = True
        if step % 300 == 220:
            fleet.ports[step // 300 % 3].dead = False
        for call in (lambda: fleet.replay.insert(rows(range(4)), timeout_s=0.2), lambda: fleet.replay.sample(16)):
            try:
                call()
                sampled += 1
            except ReplayTimeout as timeout:
                assert timeout.blocked_on in ("inserts", "samples", "reply")
        fleet.clock.sleep(0.01)
    assert sampled > 3200
    for shard in fleet.shards:
        stats_ = shard.stats()
        assert abs(4.0 * (stats_.inserted - 10) - stats_.sampled) <= 60.0 + 16 * 3


def test_a_shard_that_comes_back_with_another_min_size_is_drawn_from_by_the_new_one():
    fleet = Fleet(prefetch=0)
    fleet.ports[1].dead = True
    fleet.sample_until(20)
    fleet.ports[1].restart(make_shard(1, incarnation=2, limiter=RateLimiter(30)))
    fleet.pass_time()
    with fleet.replay.writer(shard=1) as writer:
        writer.append(rows(range(10)))
    for _ in range(5):
        assert fleet.replay.sample(16).table_size == 20
    with fleet.replay.writer(shard=1) as writer:
        writer.append(rows(range(20)))
    fleet.sample_until(50)


def test_a_shard_can_be_added_while_running():
    fleet = Fleet()
    third = make_shard(2)
    opened = {"host:2": FarShard(third, fleet.clock), "host:9": FarShard(make_shard(1), fleet.clock)}
    replay = ReplayClient(
        fleet.ports, prefetch=4, seed=1, clock=fleet.clock, open_shard=lambda address, _: opened[address]
    )
    replay.sample(16)
    replay.add_shard("host:2")
    with replay.writer(shard=2) as writer:
        writer.append(rows(range(1000, 1040)))
    seen = set()
    for _ in range(20):
        batch = replay.sample(32)
        seen.update(batch.keys["shard"].tolist())
        replay.update_priorities(batch.keys, np.ones(32))
    assert seen == {0, 1, 2}
    assert batch.table_size == 100
    assert replay.stats().size == 100
    assert replay.flush().stale == 0
    with pytest.raises(ConfigError, match="shard 1 at host:1 is a shard of this replay already"):
        replay.add_shard("host:9")
    with pytest.raises(ConfigError, match="connect"):
        fleet.replay.add_shard("host:2")


def queue_fleet(count=3, **settings):
    fleet = Fleet(
        count,
        prefetch=8,
        limiter=RateLimiter.queue(10_000),
        fill=False,
        sampler="fifo",
        max_times_sampled=1,
        **settings,
    )
    for index in range(count):
        with fleet.replay.writer(shard=index) as writer:
            writer.append(rows(range(100 * index, 100 * index + 30 * (index + 1))))
    return fleet


def test_records_that_leave_when_sampled_are_drawn_only_when_needed_and_each_handed_out_once():
    fleet = queue_fleet()
    numbers = []
    for size in (10, 50, 7, 33):
        numbers += fleet.replay.sample(size).columns["number"].tolist()
        assert sum(s.stats().sampled for s in fleet.shards) == len(numbers)
        assert fleet.replay.stats().size == 180 - len(numbers)
    with pytest.raises(ReplayTimeout) as caught:
        fleet.replay.sample(100, timeout_s=0.5)
    assert caught.value.blocked_on in ("inserts", "min_size")
    numbers += fleet.replay.sample(7).columns["number"].tolist()  # of those drawn before the deadline
    with fleet.replay.writer(shard=1) as writer:
        writer.append(rows(range(190, 210)))
    numbers += fleet.replay.sample(93).columns["number"].tolist()
    counts = np.bincount(numbers, minlength=300)
    expected = np.bincount([*range(30), *range(100, 160), *range(190, 210), *range(200, 290)], minlength=300)
    np.testing.assert_array_equal(counts, expected)


def test_records_that_leave_when_sampled_are_spread_over_shards_by_what_each_holds():
    fleet = queue_fleet()
    drawn = fleet.replay.sample(120).keys["shard"]
    assert np.abs(np.bincount(drawn, minlength=3) - [20, 40, 60]).max() <= 12


@pytest.mark.parametrize("dies_at", range(1, 12))
def test_a_dying_queue_takes_only_its_own_records_along(dies_at):
    fleet = queue_fleet(2)
    fleet.ports[1].steps, fleet.ports[1].dies_at = 0, dies_at
    numbers = []
    with pytest.raises(ReplayTimeout):
        while True:
            numbers += fleet.replay.sample(3, timeout_s=0.3).columns["number"].tolist()
    assert len(set(numbers)) == len(numbers)
    assert len([n for n in numbers if n < 100]) + fleet.replay._consumption._pooled >= 30


def test_what_a_late_queue_has_drawn_is_handed_out_when_its_answer_comes():
    """It was left out after its silence, but the records have left its table."""
    fleet = queue_fleet(2)
    numbers = fleet.replay.sample(6).columns["number"].tolist()
    batch = fleet.replay.sample(4)
    numbers += batch.columns["number"].tolist()
    fleet.replay.update_priorities(batch.keys, np.ones(4))  # stale by now: they have left
    fleet.ports[1].sample = lambda request: Late(fleet.ports[1], request)
    fleet.ports[1].stopped = True
    for _ in range(10):
        numbers += fleet.replay.sample(2, timeout_s=5.0).columns["number"].tolist()
    assert fleet.replay.stats().shards[1].state == "unreachable"
    del fleet.ports[1].sample
    fleet.ports[1].stopped = False
    fleet.pass_time()
    with pytest.raises(ReplayTimeout):
        while True:
            numbers += fleet.replay.sample(1, timeout_s=0.3).columns["number"].tolist()
    assert sorted(numbers) == [*range(30), *range(100, 160)]
    assert fleet.replay.flush().stale == 4


class Late(Call):
    """The shard has done what was asked, and its answer is on the way as long as it seems to have stopped."""

    def __init__(self, port, request):
        reply = port._shard.sample(replace(request, wait_s=0.0))
        super().__init__(port, lambda: reply)
