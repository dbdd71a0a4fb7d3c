"""The kernel of the scaling model: queues and shared processors against closed forms."""

import pytest

from distributed.scaling.events import Gate, Lane, Shared, Simulation, Stopwatch, together


def jobs(simulation, shared, amounts, finished):
    def job(index, arrives, amount):
        yield arrives
        yield shared.work(amount)
        finished[index] = simulation.now

    for index, (arrives, amount) in enumerate(amounts):
        simulation.start(job(index, arrives, amount))


def test_jobs_share_processors_evenly_and_none_uses_more_than_one():
    simulation, finished = Simulation(), {}
    shared = Shared(simulation, 2.0, 1.0)
    # alone on a core until the third comes at 1: then two thirds of a core each
    jobs(simulation, shared, [(0.0, 2.0), (0.0, 3.0), (1.0, 2.0)], finished)
    simulation.run(10.0)
    # first: 1 left at 1, done at 2.5; then second (1 left) and third (1 left) have a core each until 3.5
    assert finished == pytest.approx({0: 2.5, 1: 3.5, 2: 3.5})
    assert shared.done == pytest.approx(7.0)


def test_one_core_for_many_takes_as_long_as_all_their_work():
    simulation, finished = Simulation(), {}
    jobs(simulation, Shared(simulation, 1.0, 1.0), [(0.0, 0.1)] * 50, finished)
    simulation.run(10.0)
    assert all(at == pytest.approx(5.0) for at in finished.values())


def test_a_card_gives_one_transfer_all_of_it():
    simulation, finished = Simulation(), {}
    jobs(simulation, Shared(simulation, 100.0, 100.0), [(0.0, 50.0), (10.0, 50.0)], finished)
    simulation.run(20.0)
    assert finished == pytest.approx({0: 0.5, 1: 10.5})


def test_a_lane_serves_in_order_and_is_used_as_arrivals_times_service():
    simulation, order = Simulation(), []
    lane = Lane(simulation)

    def customer(index):
        yield 1.0 * index
        yield lane
        yield 0.7
        lane.leave()
        order.append((index, simulation.now))

    for index in range(100):
        simulation.start(customer(index))
    simulation.run(100.0)
    assert order == [(index, pytest.approx(index + 0.7)) for index in range(100)]
    assert lane.busy.seconds == pytest.approx(70.0)


def test_an_overloaded_lane_saturates_at_one_over_its_service_time():
    simulation, served = Simulation(), []
    lane = Lane(simulation)

    def source():
        while True:
            simulation.start(customer())
            yield 0.1

    def customer():
        yield lane
        yield 0.25
        lane.leave()
        served.append(simulation.now)

    simulation.start(source())
    simulation.run(100.0)
    assert len(served) == pytest.approx(400, abs=1) and lane.busy.seconds == pytest.approx(100.0)


def test_who_waits_at_a_gate_goes_on_once_opened_or_out_of_time():
    simulation, heard = Simulation(), []
    gate = Gate(simulation)

    def waits(name, seconds):
        came = yield gate.within(seconds)
        heard.append((name, came, simulation.now))
        yield gate
        heard.append((name, "again", simulation.now))

    def opens():
        yield 2.0
        gate.open_all()

    simulation.start(waits("short", 1.0))
    simulation.start(waits("long", 5.0))
    simulation.start(opens())
    simulation.run(10.0)
    # `long` came first and goes first; it waits anew when the gate has closed, and its 5 s are nobody's any more
    assert heard == [("short", False, 1.0), ("long", True, 2.0), ("short", "again", 2.0)]


def test_all_parts_together_end_with_the_last():
    simulation, ended = Simulation(), []

    def part(seconds):
        yield seconds

    def whole():
        yield from together(simulation, [part(1.0), part(3.0), part(2.0)])
        ended.append(simulation.now)
        yield from together(simulation, [])
        ended.append(simulation.now)

    simulation.start(whole())
    simulation.run(5.0)
    assert ended == [3.0, 3.0]


def test_a_stopwatch_counts_what_is_not_stopped_yet():
    simulation = Simulation()
    watch = Stopwatch(simulation)
    watch.start()
    simulation.run(2.0)
    assert watch.seconds == 2.0
    watch.stop()
    simulation.run(3.0)
    assert watch.seconds == 2.0


def test_a_limited_number_of_events_leaves_the_clock_where_it_is():
    simulation = Simulation()

    def ticks():
        while True:
            yield 1.0

    simulation.start(ticks())
    simulation.run(100.0, most_events=5)
    assert (simulation.now, simulation.events) == (4.0, 5)
