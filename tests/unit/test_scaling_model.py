"""The scaling model against closed forms, its predictions, and the command on top."""

import os

import pytest
from msgspec.structs import replace

from distributed import cli
from distributed.bench.machine import Machine
from distributed.config_loading import find_config
from distributed.loading import load_experiment
from distributed.scaling import model
from distributed.scaling.bench import check, fitted, prices_from, sizes_from
from distributed.scaling.measured import Point, _point
from distributed.scaling.model import simulate
from distributed.scaling.prediction import Plan, bound_by, predict, remedy, saturation
from distributed.scaling.report import Check, ScalingReport, tables
from distributed.scaling.system import Cost, Machines, ServiceTimes, System, sized
from replay_server.errors import ConfigError
from replay_server.rate_limiter import RateLimiter

NOTHING = Cost(0.0, 0.0)
TIMES = ServiceTimes(
    vector_step_s=0.01,
    load_s=0.0,
    insert_client=NOTHING,
    insert_shard=NOTHING,
    sample_client=NOTHING,
    sample_shard=NOTHING,
    update_s=0.01,
    snapshot_s=0.0,
    store_publish_s=0.0,
    store_answer_s=0.0,
    driver_look_s=0.0,
    driver_report_s=0.0,
    weight_bytes=1000,
    record_bytes=100,
)
CLUSTER = Machines(latency_s=0.0, bytes_per_s=1e12)


def a_system(**changes):
    """Each actor makes 1,600 records a second at most; the learner takes 100 batches of 64."""
    buffer = 2.0 * (64 * 4 + 16 * 4.0 * 8)
    limiter = RateLimiter(min_size=100, samples_per_insert=4.0, error_buffer=buffer)
    settings = {
        "actors": 1,
        "num_envs": 16,
        "records_per_insert": 16,
        "shards": 1,
        "limiter": limiter,
        "batch_size": 64,
        "prefetch": 4,
        "updates_per_batch": 1,
        "publish_every_updates": 10,
        "machines": CLUSTER,
    }
    return System(**(settings | changes))


def test_too_few_actors_bound_a_run_and_the_learner_waits_for_them():
    # 1 / vector_step_s * num_envs, whatever the learner could do
    outcome = simulate(a_system(limiter=RateLimiter(100, 2.0, 3000.0)), TIMES, 4.0)
    assert outcome.env_steps_per_second == pytest.approx(1600.0, rel=0.05)
    assert outcome.updates_per_second == pytest.approx(1600.0 * 2.0 / 64, rel=0.05)
    assert outcome.busy["actors"] == pytest.approx(1.0, abs=0.02) and bound_by(outcome) == "actors"
    assert outcome.learner_waiting == pytest.approx(0.5, abs=0.05)


def test_the_learner_bounds_a_run_at_one_over_its_service_demand():
    outcome = simulate(a_system(actors=4), TIMES, 4.0)
    assert outcome.updates_per_second == pytest.approx(100.0, rel=0.02)
    assert outcome.env_steps_per_second == pytest.approx(100.0 * 64 / 4.0, rel=0.05)
    assert outcome.busy["learner"] == pytest.approx(1.0, abs=0.02) and bound_by(outcome) == "learner"
    assert outcome.actors_blocked == pytest.approx(0.75, abs=0.03)


def test_what_is_sampled_is_what_the_law_says():
    for ratio in (0.5, 4.0, 16.0):
        outcome = simulate(a_system(actors=3, limiter=RateLimiter(100, ratio, 2000.0)), TIMES, 6.0)
        assert outcome.sampled_per_insert == pytest.approx(ratio, rel=0.1)


def test_a_shard_is_used_as_calls_times_service():
    times = replace(TIMES, insert_shard=Cost(0.0005, 0.00001), sample_shard=Cost(0.001, 0.00001))
    outcome = simulate(a_system(limiter=RateLimiter(100, 2.0, 3000.0)), times, 4.0)
    inserts, rounds = outcome.env_steps_per_second / 16, outcome.updates_per_second / 2
    demand = inserts * (0.0005 + 16 * 0.00001) + rounds * (0.001 + 128 * 0.00001)
    assert outcome.busy["shards"] == pytest.approx(demand, rel=0.03)


def test_a_slow_shard_bounds_a_run_and_two_of_them_do_twice_as_much():
    times = replace(TIMES, insert_shard=Cost(0.01, 0.0))
    law = RateLimiter(100, 0.25, 1e6)
    one, two = (simulate(a_system(actors=4, shards=n, limiter=law), times, 4.0) for n in (1, 2))
    assert one.env_steps_per_second == pytest.approx(100 * 16, rel=0.05) and bound_by(one) == "shards"
    assert two.env_steps_per_second == pytest.approx(200 * 16, rel=0.05)


def test_one_machine_is_shared_by_all():
    machine = Machines(one=True, head_cores=2.0)
    alone, crowded = (
        simulate(a_system(actors=n, machines=machine, limiter=RateLimiter(100, 0.25, 1e6)), TIMES, 4.0) for n in (1, 4)
    )
    assert alone.env_steps_per_second == pytest.approx(1600.0, rel=0.03)
    # records need 0.01 / 16 s each to make and 0.25 / 64 * 0.01 s to learn from: two processors for all of that
    assert crowded.env_steps_per_second == pytest.approx(2.0 / (0.01 / 16 + 0.25 / 64 * 0.01), rel=0.03)
    assert crowded.busy["processors"] == pytest.approx(1.0, abs=0.01) and bound_by(crowded) == "processors"


def test_more_actors_never_do_less_until_the_learner_is_full():
    law = RateLimiter(100, 1.0, 4000.0)
    rates = [simulate(a_system(actors=n, limiter=law), TIMES, 2.0).env_steps_per_second for n in (1, 2, 3, 4, 6)]
    assert rates[:4] == pytest.approx([1600.0, 3200.0, 4800.0, 6400.0], rel=0.05)
    assert rates[4] == pytest.approx(6400.0, rel=0.05)


def test_blocked_actors_ask_again_so_seldom_that_a_shard_has_time_for_others():
    times = replace(TIMES, insert_shard=Cost(0.001, 0.0))
    few, many, crowd = (simulate(a_system(actors=n), times, 3.0) for n in (8, 60, 240))
    assert few.busy["shards"] < many.busy["shards"] < crowd.busy["shards"] < 0.9
    assert many.busy["shards"] < 0.4  # without growing pauses 48 actors would ask 1,600 times a second
    assert many.env_steps_per_second == pytest.approx(1600.0, rel=0.05)
    assert few.env_steps_per_second == pytest.approx(1600.0, rel=0.05)


def test_a_slow_weight_store_makes_actors_act_with_old_weights():
    quick, slow = (simulate(a_system(actors=4), replace(TIMES, store_answer_s=s), 4.0) for s in (0.0, 0.2))
    assert quick.staleness < 1.0 < slow.staleness


def test_a_store_that_is_full_holds_nobody_up():
    idle, full = (predict(a_plan(actors=8, store_answer_s=s, update_s=0.001), 4.0, {}) for s in (0.0, 0.2))
    assert full.outcome.busy["store"] > 0.9 and full.bound_by == idle.bound_by != "store"
    assert full.outcome.updates_per_second == pytest.approx(idle.outcome.updates_per_second, rel=0.05)
    assert full.outcome.staleness > 10.0 * idle.outcome.staleness


def test_versions_that_a_slow_store_has_no_time_for_are_never_fetched():
    times = replace(TIMES, store_publish_s=0.5)
    outcome = simulate(a_system(actors=4), times, 8.0)
    assert outcome.updates_per_second == pytest.approx(100.0, rel=0.02)  # ten versions a second
    assert 3.0 < outcome.staleness < 12.0  # fetched every half second, each as new as it was at the beginning of that


def test_a_slow_driver_leaves_actors_idle():
    times, law = replace(TIMES, driver_report_s=0.1), RateLimiter(100, 0.25, 1e6)
    outcome = simulate(a_system(actors=16, limiter=law), times, 4.0)
    assert outcome.busy["driver"] == pytest.approx(1.0, abs=0.02) and bound_by(outcome) == "driver"
    # everybody acts for 0.2 s in every turn of the driver, of 17 reports
    assert outcome.env_steps_per_second == pytest.approx(16 * 1600.0 * 0.2 / 1.7, rel=0.15)


def test_what_has_not_settled_is_simulated_for_longer():
    # a vector step of ten seconds: in the second that was asked for, nobody does anything
    slow, law = replace(TIMES, vector_step_s=10.0), RateLimiter(100, 4.0, 3000.0)
    outcome = simulate(a_system(actors=20, limiter=law), slow, 1.0)
    assert outcome.settled and outcome.simulated_s > 50.0
    assert outcome.env_steps_per_second == pytest.approx(20 * 1.6, rel=0.1)
    assert outcome.updates_per_second == pytest.approx(20 * 1.6 * 4.0 / 64, rel=0.1)
    longer = simulate(a_system(actors=20, limiter=law), slow, 1000.0)
    assert outcome.env_steps_per_second == pytest.approx(longer.env_steps_per_second, rel=0.1)


def test_a_run_that_takes_too_many_events_to_settle_says_so_and_has_no_figures(monkeypatch):
    monkeypatch.setattr(model, "_MOST_EVENTS", 20_000)
    plan = a_plan(actors=200, insert_shard=Cost(1.0, 0.0))
    found = predict(plan, 1.0, {"head": 1.0})
    assert not found.outcome.settled and found.bound_by == "shards"
    assert (found.gain, found.node_hours, found.price) == (None, None, None)
    report = ScalingReport("cartpole_dqn", Machine.here(), "now", True, TIMES, (), (found,), CLUSTER)
    text = tables(report)
    assert "| 200 | 1 | 15 | not settled | - | - | - | shards | twice the shards | - |" in text
    assert saturation([found]) is None and "Saturates" not in text


def test_more_actors_may_take_more_events_to_settle():
    # a thousand that are blocked: 400,000 events are over before the learner has caught up with where they began
    times = replace(TIMES, driver_report_s=0.0005, driver_look_s=1e-6, insert_shard=Cost(0.0006, 0.0))
    outcome = simulate(a_system(actors=1000, limiter=RateLimiter(100, 4.0, 3000.0)), times, 10.0)
    assert outcome.settled and outcome.simulated_s >= 10.0


def test_whoever_works_all_the_time_is_held_up_by_nobody():
    found = simulate(a_system(), TIMES, 1.0)

    def busy(**shares):
        return bound_by(replace(found, busy=dict.fromkeys(found.busy, 0.1) | shares))

    assert busy(learner=0.95, driver=1.0, shards=1.0) == "learner"
    assert busy(actors=0.99, driver=1.0, learner=0.8) == "actors"
    assert busy(actors=0.99, learner=0.93) == "actors"
    assert busy(driver=1.0, shards=0.95, learner=0.5) == "driver"
    assert busy(learner=0.95, actors=0.95, processors=1.0) == "processors"


def test_the_same_seed_gives_the_same_run_and_another_one_another():
    system = a_system(actors=3, limiter=RateLimiter(100, 1.0, 4000.0))
    first, again, other = (simulate(system, TIMES, 1.0, seed) for seed in (0, 0, 1))
    assert first == again and first != other


def test_a_cost_is_the_line_through_two_calls():
    cost = Cost.through((10, 3.0), (30, 5.0))
    assert cost == Cost(2.0, 0.1) and cost.of(20) == 4.0
    assert Cost.through((10, 3.0), (30, 2.0)) == Cost(3.0, 0.0)


def a_plan(actors=4, **times):
    config = sized(load_experiment(find_config("cartpole_dqn"), ()).config, actors, 1)
    return Plan(config, replace(TIMES, **times), CLUSTER)


def test_a_system_is_what_the_config_says():
    plan = a_plan(actors=5)
    system = System.of(plan.config, CLUSTER)
    assert (system.actors, system.num_envs, system.chunk, system.batch_size) == (5, 8, 32, 64)
    assert system.limiter.samples_per_insert == 16.0
    assert system.nodes == {"head": 1, "actor": 1, "shard": 1}
    assert replace(system, actors=17, shards=3).nodes == {"head": 1, "actor": 2, "shard": 2}
    assert sized(plan.config, 2, 8).replay.shards == 2


def test_a_queue_has_no_law_to_model():
    config = load_experiment(find_config("cartpole_reinforce"), ()).config
    with pytest.raises(ConfigError, match="law of samples per insert"):
        System.of(config, CLUSTER)


def test_a_prediction_names_the_bound_its_remedy_and_what_it_takes():
    found = predict(a_plan(), 2.0, {"head": 2.0, "actor": 1.0})
    assert (found.bound_by, found.gain) == ("learner", pytest.approx(2.0, rel=0.05))
    assert "learner twice as fast" in found.add
    rate = found.outcome.env_steps_per_second
    assert rate == pytest.approx(100.0 * 64 / 16, rel=0.05)
    assert found.node_hours == pytest.approx(3 * 1e9 / rate / 3600)
    assert found.price == pytest.approx((2.0 + 1.0) * 1e9 / rate / 3600)
    assert predict(a_plan(), 0.2, {}).price is None


@pytest.mark.parametrize("bound", ["learner", "shards", "driver", "store", "network", "processors", "actors"])
def test_every_bound_has_a_remedy_that_changes_the_run(bound):
    plan = a_plan()
    words, better = remedy(plan, bound)
    assert words and (System.of(better.config, better.machines), better.times) != (
        System.of(plan.config, plan.machines),
        plan.times,
    )


def test_a_run_saturates_where_more_brings_no_tenth_more():
    found = predict(a_plan(), 0.2, {})

    def doing(rate, actors):
        return replace(found, actors=actors, outcome=replace(found.outcome, env_steps_per_second=rate))

    assert saturation([doing(10.0, 1), doing(95.0, 10), doing(100.0, 100), doing(20.0, 1000)]).actors == 10


POINT = Point(2, 1, 400.0, 100.0, 0.1, 0.2, 0.5, 10.0, 1.0, 0.0)


def test_a_short_row_counts_as_long_as_it_lasted():
    def row(seconds, blocked, waiting, staleness):
        time = {"seconds": seconds, "actors_blocked": blocked, "learner_waiting": waiting}
        return {"env_steps": 100 * seconds, "updates": 10 * seconds, "staleness": staleness, "time": time}

    rows = [row(5.0, 9.0, 9.0, 9.0), row(5.1, 4.0, 1.0, 11.0), row(7.0, 0.3, 0.2, None), row(9.0, 0.5, 0.4, 1.0)]
    point = _point(a_plan().config, rows, 1.0, 0.0)
    assert (point.env_steps_per_second, point.seconds) == (pytest.approx(100.0), 4.0)
    assert point.actors_blocked == pytest.approx((0.1 * 4.0 + 1.9 * 0.3 + 2.0 * 0.5) / 4.0)
    assert point.learner_waiting == pytest.approx((0.1 * 1.0 + 1.9 * 0.2 + 2.0 * 0.4) / 4.0)
    assert point.staleness == pytest.approx((0.1 * 11.0 + 2.0 * 1.0) / 2.1)
    assert _point(a_plan().config, [row(1.0, 0.0, 0.0, None), row(2.0, 0.0, 0.0, None)], 1.0, 0.0).staleness is None


def test_a_real_run_is_compared_on_the_processors_that_others_left():
    config = a_plan().config
    whole = check(config, TIMES, POINT, 2.0)
    assert whole.error == pytest.approx(whole.simulated.env_steps_per_second / 400.0 - 1.0)
    others = (os.cpu_count() or 1) - 0.5
    half = check(config, TIMES, replace(POINT, cores_others=others), 2.0)
    assert half.simulated.busy["processors"] == pytest.approx(1.0, abs=0.01)
    assert half.simulated.env_steps_per_second < 0.7 * whole.simulated.env_steps_per_second


def test_what_the_learners_parts_cost_together_is_fitted_where_it_is_the_limit():
    config, point = a_plan().config, replace(POINT, actors=8, cores_others=0.0)
    slow = replace(TIMES, update_s=0.05, vector_step_s=0.001)
    learner = check(config, slow, point, 4.0).simulated
    assert learner.busy["learner"] > 0.95
    half = replace(point, updates_per_second=learner.updates_per_second / 2)
    times = fitted(config, slow, half, 4.0)
    assert times.together_s == pytest.approx(1.0 / learner.updates_per_second)
    assert check(config, times, half, 4.0).simulated.updates_per_second == pytest.approx(
        half.updates_per_second, rel=0.05
    )
    assert fitted(config, slow, replace(point, updates_per_second=1e6), 4.0) == slow  # never makes it faster
    assert fitted(config, replace(TIMES, vector_step_s=1.0), half, 4.0).together_s == 0.0  # the actors are the limit


def test_a_report_is_read_back_and_its_tables_say_what_was_assumed(tmp_path):
    found = predict(a_plan(), 0.2, {"head": 1.0})
    outcome = found.outcome
    report = ScalingReport(
        "cartpole_dqn", Machine.here(), "now", True, TIMES, (Check(POINT, outcome),), (found,), CLUSTER, {"head": 1.0}
    )
    path = tmp_path / "scaling.json"
    report.write(path)
    assert ScalingReport.read(path) == report
    text = tables(report)
    assert "Mean error" in text and "bound by learner" in text and "Assumed: a head of 8 cores" in text
    path.write_text("{}")
    with pytest.raises(ConfigError, match="not what headrace bench scaling --json wrote"):
        ScalingReport.read(path)


def test_the_command_predicts_from_a_calibration(tmp_path, capsys):
    file, out = tmp_path / "calibration.json", tmp_path / "out.json"
    ScalingReport("cartpole_dqn", Machine.here(), "now", True, TIMES).write(file)
    command = ["bench", "scaling", "cartpole_dqn", "--simulate", "--quick", "--calibration", str(file)]
    options = ["--actors", "4,2", "--learner-times", "2", "--step-seconds", "0.02", "--price", "head=3"]
    settings = ["--learner.samples_per_insert", "8"]
    assert cli.main([*command, *options, *settings, "--json", str(out)]) == 0
    report = ScalingReport.read(out)
    assert [prediction.actors for prediction in report.predictions] == [2, 4]
    assert report.predictions[1].outcome.updates_per_second == pytest.approx(200.0, rel=0.2)
    assert report.predictions[0].price is not None and report.times == TIMES
    printed = capsys.readouterr().out
    assert "a learner 2 times as fast, 20 ms a vector step, --learner.samples_per_insert 8." in printed
    assert report.settings == {"--learner.samples_per_insert": "8"}
    assert report.predictions[1].outcome.sampled_per_insert == pytest.approx(8.0, rel=0.1)
    assert cli.main([*command[:2], "movie_pick_dqn", *command[3:]]) == 2
    assert "is of cartpole_dqn, not of movie_pick_dqn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scaling", "--rows", "x"], "--rows: belongs to bench replay and bench learner"),
        (["replay", "--replay.prefetch", "8"], "--replay.prefetch: only bench scaling takes settings"),
        (["scaling", "--simulate", "--replay.prefitch", "8"], "prefetch"),
        (["replay", "--simulate"], "--simulate: belongs to bench scaling; leave it out of bench replay"),
        (["scaling", "--price", "head=1"], "--price: says something about predictions; add --simulate"),
        (["scaling", "--simulate", "--actors", "1,x"], "--actors: must be whole numbers"),
        (["scaling", "--simulate", "--price", "gpu=1"], "--price: gpu=1: give KIND=PRICE"),
        (["scaling", "--simulate", "--step-seconds", "-1"], "--step-seconds: must be a number above 0"),
        (["scaling", "cartpole_reinforce", "--simulate"], "law of samples per insert"),
    ],
)
def test_wrong_options_are_refused_in_one_line(arguments, message, capsys):
    assert cli.main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_sizes_and_prices_are_read():
    assert sizes_from("100,10,10") == (10, 100)
    assert prices_from(["head=2", "shard=0.5"]) == {"head": 2.0, "shard": 0.5}
