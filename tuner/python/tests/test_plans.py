"""Which plan a session takes, and tuning."""

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

import inception_tuner
from inception_tuner import PlanError, Session

MODEL = "mixed10"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A folder of results with a plan of a block for one thread, and what its tuning reported."""
    results, heard = tmp_path_factory.mktemp("tuned"), []
    plan = inception_tuner.tune(
        model=MODEL, threads=1, budget=2, results=results, progress=lambda *what: heard.append(what)
    )
    return results, plan, heard


def test_tuning_writes_a_plan_and_reports_progress(tuned):
    results, plan, heard = tuned
    assert Path(plan).is_relative_to(results)
    assert json.loads(Path(plan).read_text())["model"] == MODEL
    assert all(isinstance(stage, str) and 0 <= done <= 1 and isinstance(detail, str) for stage, done, detail in heard)
    assert len({stage for stage, _, _ in heard}) > 1


def test_the_newest_plan_of_this_machine_is_taken(tuned):
    results, plan, _ = tuned
    session = Session.open(model=MODEL, threads=1, results=results)
    assert session.plan == plan
    assert json.loads(session.plan_json)["created"] == json.loads(Path(plan).read_text())["created"]


def test_the_nearest_plan_is_taken_where_none_is_for_the_batch_and_reported(tuned, caplog):
    results, plan, _ = tuned
    session = Session.open(model=MODEL, threads=2, batch=3, results=results)
    assert (session.plan, session.threads, session.batch) == (plan, 2, 3)
    assert "made for threads=1 and batch=1, the nearest plan" in caplog.text


def test_without_a_plan_the_built_in_choice_is_taken_and_reported(tmp_path, caplog):
    session = Session.open(model=MODEL, threads=1, results=tmp_path)
    assert session.plan is None
    assert "no plan for mixed10 with threads=1 and batch=1" in caplog.text


def test_a_plan_by_its_path_gives_threads_and_batch(tuned):
    _, plan, _ = tuned
    session = Session.open(model=MODEL, plan=plan)
    assert (session.plan, session.threads, session.batch) == (plan, 1, 1)
    with pytest.raises(PlanError, match="threads is 1, expected 2"):
        Session.open(model=MODEL, plan=plan, threads=2)
    with pytest.raises(PlanError, match="model is mixed10, expected mixed9"):
        Session.open(model="mixed9", plan=plan)
    with pytest.raises(FileNotFoundError, match="missing.json: "):
        Session.open(model=MODEL, plan="missing.json")


def test_a_plan_of_another_processor_is_never_used(tuned, tmp_path):
    results, plan, _ = tuned
    other = json.loads(Path(plan).read_text())
    other["machine"]["cpu"] = "another processor"
    folder = tmp_path / Path(plan).parent.name
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps(other))
    assert Session.open(model=MODEL, threads=1, results=tmp_path).plan is None
    with pytest.raises(PlanError, match="plan.json: machine.cpu is another processor"):
        Session.open(model=MODEL, plan=folder / "plan.json")


def open_with_budget(results):
    session = Session.open(model=MODEL, threads=1, budget=2, results=results)
    return session.plan, json.loads(session.plan_json)["created"], Path(session.plan).stat().st_mtime_ns


def test_one_process_of_a_machine_tunes_and_the_others_take_its_plan(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.map(open_with_budget, [tmp_path] * 3, chunksize=1)
    assert len(set(found)) == 1
    assert len(list(tmp_path.rglob("plan-*.json"))) == 1


def test_an_exception_of_progress_ends_the_tuning_and_nothing_is_written(tmp_path):
    def progress(stage, done, detail):
        raise LookupError("enough")

    start = time.monotonic()
    with pytest.raises(LookupError, match="enough"):
        inception_tuner.tune(model=MODEL, threads=1, budget=60, results=tmp_path, progress=progress)
    assert time.monotonic() - start < 20 and not list(tmp_path.rglob("plan-*.json"))


def test_an_interrupt_ends_the_tuning(tmp_path):
    start = time.monotonic()
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        inception_tuner.tune(model=MODEL, threads=1, budget=60, results=tmp_path)
    assert time.monotonic() - start < 20 and not list(tmp_path.rglob("plan-*.json"))


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_measured(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    start = time.monotonic()
    with pytest.raises(OSError, match="file"):
        inception_tuner.tune(model=MODEL, threads=1, results=file)
    with pytest.raises(OSError, match="cannot write"):
        inception_tuner.tune(model=MODEL, threads=1, results=tmp_path, out=tmp_path)
    assert time.monotonic() - start < 5
