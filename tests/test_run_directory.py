"""What a run finds in its directory: another job's plan, a run that was half removed, another program's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pretend_worker import Place

from jobs.config.job import JobConfig
from jobs.engine import driver
from jobs.engine.driver import run_job
from jobs.errors import RunError
from jobs.plan import plan
from jobs.plan.plan import make_plan
from jobs.run.manifest import Plan, load_plan
from jobs.run.record import encoded_record, wipe
from jobs.run.tables import JOB_FILE, MANIFEST, SUCCESS, finished_shards, part_name
from jobs.storage.store import Store


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def record_of(job: JobConfig) -> bytes:
    """``job.yaml`` of ``job`` over its input as it is now."""
    inputs = make_plan(job, Store.open(f"{job.output}-aside")).inputs
    return encoded_record(job.model_dump(mode="json") | {"run": {"inputs": inputs}})


def names_in(run: Store) -> set[str]:
    return {path.relative_to(run.url).as_posix() for path in Path(run.url).rglob("*") if path.is_file()}


class Killed(BaseException):
    """The process ends here."""


WHOLE = (
    *(part_name(folder, part, "parquet") for folder in ("attributions", "texts", "rejects") for part in range(3)),
    *(SUCCESS, JOB_FILE, MANIFEST, "report.html", "statistics/summary.json", "rejects/part-plan.parquet"),
    *("plan/pairs-00ff.parquet", "plan/texts-00ff.parquet"),
)


@pytest.mark.parametrize("removed", range(len(WHOLE) + 1))
def test_a_restart_stopped_anywhere_leaves_nothing_that_counts_as_done(tmp_path: Path, removed: int) -> None:
    """Shards whose texts were gone already would have been skipped by the next start, for good."""
    run = Store.open(tmp_path)
    for name in WHOLE:
        run.commit(name, b"x")
    remove, left = run.remove, iter(range(removed))

    def dying(name: str) -> None:
        if next(left, None) is None:
            raise Killed
        remove(name)

    run.remove = dying  # type: ignore[method-assign]
    if removed < len(WHOLE):
        with pytest.raises(Killed):
            wipe(run)
    else:
        wipe(run)
    there = names_in(run)
    assert len(there) == len(WHOLE) - removed
    if there:
        assert JOB_FILE in there
    if finished_shards(run):
        assert MANIFEST in there
    if finished_shards(run) or MANIFEST in there:
        assert {name for name in WHOLE if name.startswith(("plan/", "texts/", "rejects/"))} <= there


def test_what_a_late_stopped_restart_left_is_not_taken_for_the_new_run(place: Place) -> None:
    """Old texts and rejects would stand beside new attributions: a part that is there is never written again."""
    job, run = place.job(), Store.open(place.output)
    run.commit(JOB_FILE, record_of(job))
    run.commit("texts/part-00000.parquet", b"old")
    assert driver._existing_record(run, job, restart=False) is None
    assert names_in(run) == set()


def test_a_run_goes_on_where_only_its_plan_or_its_parts_are_missing(place: Place) -> None:
    job, run = place.job(), Store.open(place.output)
    run.commit(JOB_FILE, record_of(job))
    run.commit("attributions/part-00000.parquet", b"mine")
    assert driver._existing_record(run, job, restart=False) is not None
    run.remove("attributions/part-00000.parquet")
    make_plan(job, run)
    assert driver._existing_record(run, job, restart=False) is not None
    assert run.exists(MANIFEST)


@pytest.mark.parametrize("restart", [False, True])
def test_another_programs_mark_of_success_is_refused(place: Place, restart: bool) -> None:
    """As an emptied output of Spark has it: a run that is stopped there would be called finished."""
    place.output.mkdir()
    (place.output / SUCCESS).touch()
    with pytest.raises(RunError, match=r"not a run of tokenpair \(it holds _SUCCESS\)"):
        place.run(restart=restart)
    assert [path.name for path in place.output.iterdir()] == [SUCCESS]


@pytest.mark.parametrize("settings", [{"limit": 5}, {"sample": 5}, {"shards": 3}, {"layer": -1}])
def test_a_plan_of_another_job_is_not_worked_on(place: Place, settings: dict[str, Any]) -> None:
    """One job's plan and the other's job.yaml, from two starts at a time: all rows would be there, of wrong pairs."""
    mine, run = place.job(), Store.open(place.output)
    make_plan(place.job(**settings), run)
    run.commit(JOB_FILE, record_of(mine))
    with pytest.raises(RunError, match=r"plan is of another job.*--restart") as caught:
        run_job(mine, quiet=True)
    assert "\n" not in str(caught.value)


def test_of_two_jobs_that_plan_at_once_the_second_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = place.job(), place.job(limit=5)

    def beaten(job: JobConfig, run: Store) -> Plan:
        make_plan(other, run)
        return make_plan(job, run)

    monkeypatch.setattr(driver, "make_plan", beaten)
    with pytest.raises(RunError, match="plan is of another job"):
        run_job(mine, quiet=True)
    present = load_plan(Store.open(place.output))
    assert present is not None
    assert present.job == other.digest()


def test_a_planner_that_comes_second_leaves_the_firsts_rejects(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = place.input.with_name("clean.csv")
    clean.write_text("sentence1,sentence2\nx,y\n")
    place.input.write_text("sentence1,sentence2\nx,y\n,z\n")
    first, second, run = place.job(), place.job(input=str(clean)), Store.open(place.output)
    calibrate, beaten = plan.calibrate, iter([True])

    def calibrated(*arguments: Any) -> Any:
        if next(beaten, False):
            make_plan(first, run)
        return calibrate(*arguments)

    monkeypatch.setattr(plan, "calibrate", calibrated)
    assert make_plan(second, run).job == first.digest()
    assert run.exists("rejects/part-plan.parquet")


def test_a_plan_is_a_jobs_whatever_its_means(place: Place) -> None:
    """Would catch a plan refused because workers, memory or the place are others, or a setting is left open."""
    job = place.job()
    assert job.digest() == place.job(workers={"count": 2}, memory="1GiB", output="elsewhere").digest()
    assert job.digest() == JobConfig.model_validate(job.model_dump(mode="json")).digest()
    assert job.digest() != place.job(top_k=3).digest()


def test_success_is_not_written_into_another_jobs_run(place: Place) -> None:
    """Somebody else's --restart while the last shard of this run was on its way."""
    mine, run = place.job(), Store.open(place.output)
    made = make_plan(mine, run)
    for shard in made.shards:
        run.commit(part_name("attributions", shard.index, "parquet"), b"x")
    run.commit(JOB_FILE, record_of(place.job(layer=-1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "read_totals", lambda *_: driver.Totals())
        with pytest.raises(RunError, match=r"holds another job.*layer: -1 there, -2 now"):
            driver._reconciled(run, made, mine, None, 0.0)  # type: ignore[arg-type]
        run.remove(JOB_FILE)
        with pytest.raises(RunError, match=r"job\.yaml was removed"):
            driver._reconciled(run, made, mine, None, 0.0)  # type: ignore[arg-type]
    assert not run.exists(SUCCESS)
