"""A run as a trace: every attempt at a stage is a slice of its worker's, and nothing else is."""

import json
import os
from itertools import pairwise

import perfetto_reader
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.api import EmptySelectionError
from harness.inspection.run_status import RunningStage, RunStatus
from harness.inspection.trace import trace
from harness.store import timeline
from harness.store.timeline import Attempt, TimelineFile, attempts

RUN = RunStatus(run="toy-1", state="finished")

_times = st.floats(0, 2e9).map(lambda seconds: round(seconds, 6))
_attempts = st.builds(
    lambda key, worker, when, status: Attempt(
        stage=key, cell="c", label=f"torch · {key}", kind="train", worker=worker, given=when[0], begun=when[1],
        ended=when[2], status=status,
    ),
    st.text("abcdef", min_size=1, max_size=4),
    st.sampled_from(("", "one 11", "one 12", "two 11")),
    st.lists(_times, min_size=3, max_size=3).map(sorted),
    st.sampled_from(("ok", "crashed", "interrupted")),
)  # fmt: skip


def written(folder, found):
    file = TimelineFile(folder)
    for each in found:
        file.add(each)
    file.close()


@given(st.lists(_attempts, min_size=1, max_size=12))
def test_every_attempt_is_a_slice_of_its_length_on_the_thread_of_its_worker(tmp_path_factory, found):
    folder = tmp_path_factory.mktemp("run")
    written(folder, found)

    events = json.loads(json.dumps(trace([(folder, RUN)])))["traceEvents"]

    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    hosts = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    slices = [e for e in events if e["ph"] == "X" and e["cat"] != "start"]
    start = min(each.given for each in found)
    told = sorted((e["args"]["stage"], e["args"]["status"], e["ts"], e["dur"]) for e in slices)
    expected = [
        (each.stage, each.status, pytest.approx((each.begun - start) * 1e6, abs=1),
         pytest.approx((each.ended - each.begun) * 1e6, abs=1))
        for each in sorted(found, key=lambda each: (each.stage, each.status, each.begun, each.ended))
    ]  # fmt: skip
    assert told == expected
    assert all(names[e["pid"], e["tid"]] and hosts[e["pid"]].startswith("toy-1") for e in slices)
    workers = {each.worker for each in found}
    own = {place for place, name in names.items() if not name.endswith(", at the same time")}
    assert len(own) == len(workers) and len(hosts) == len({worker.rpartition(" ")[0] for worker in workers})
    # Whatever began has ended.
    for host in hosts:
        assert [e["args"]["stages"] for e in events if e["ph"] == "C" and e["pid"] == host][-1] == 0
    assert all(e["ts"] >= 0 and e.get("dur", 0) >= 0 for e in events if e["ph"] in "XC")


@given(st.lists(_attempts, min_size=1, max_size=12), st.integers(0, 3))
def test_perfetto_drops_nothing_and_nests_nothing(tmp_path_factory, found, neighbours):
    """Also where stages follow each other in the same instant, overlap, or take no time."""
    last = max(found, key=lambda each: each.ended)
    for _ in range(neighbours):
        last = last.model_copy(update={"given": last.ended, "begun": last.ended + 0.02, "ended": last.ended + 1.3})
        found = [*found, last]
    folder = tmp_path_factory.mktemp("run")
    written(folder, found)

    made = trace([(folder, RUN), (folder, RUN)])
    slices, dropped = perfetto_reader.read(json.loads(json.dumps(made)))

    assert dropped == [] and {depth for _, _, begin, end, _, depth in slices if end > begin} <= {1}
    assert len(slices) == sum(e["ph"] == "X" for e in made["traceEvents"]) >= 2 * len(found)


def test_one_after_the_other_is_one_thread(tmp_path):
    ends = [0.1, 0.4000001, 0.7000003, 1.1]
    found = [
        # Handed out at a time in whole milliseconds, which may be before the other has ended.
        Attempt(stage=str(place), worker="one 11", given=round(given - 0.0004, 3), begun=given + 0.05, ended=ended)
        for place, (given, ended) in enumerate(pairwise(ends))
    ]
    written(tmp_path, found)

    made = trace([(tmp_path, RUN)])

    names = [event["args"]["name"] for event in made["traceEvents"] if event["name"] == "thread_name"]
    assert names == ["worker 1, process 11"]
    assert perfetto_reader.read(made)[1] == []


def test_what_was_cut_off_or_is_no_attempt_is_left_out_and_the_next_line_is_whole(tmp_path):
    one = Attempt(stage="a", given=1.0, begun=2.0, ended=3.0)
    written(tmp_path, [one])
    file = tmp_path / timeline.FILE
    file.write_bytes(file.read_bytes() + b'{"stage": "b", "given": 1.0, "en')

    written(tmp_path, [one.model_copy(update={"stage": "c"})])
    file.write_bytes(file.read_bytes() + b'[1]\n{"stage": "d", "given": -1, "ended": 2}\n\xff\n')

    assert [each.stage for each in attempts(tmp_path)] == ["a", "c"]


@pytest.mark.parametrize("what", ["folder", "link", "pipe"])
def test_what_lies_in_the_place_of_a_timeline_is_left_alone(tmp_path, what):
    place, other = tmp_path / timeline.FILE, tmp_path / "other"
    other.write_text("mine")
    {"folder": place.mkdir, "link": lambda: place.symlink_to(other), "pipe": lambda: os.mkfifo(place)}[what]()

    written(tmp_path, [Attempt(stage="a", given=1.0, ended=3.0)] * 2)

    assert other.read_text() == "mine"
    assert list(attempts(tmp_path)) == []


def test_stages_under_way_are_slices_up_to_the_last_word_of_their_run(tmp_path):
    running = RunningStage(stage="b", label="torch · epoch 2", since=10.0)
    status = RunStatus(run="toy-1", state="running", running=(running,), written=14.0)

    [event] = [each for each in trace([(tmp_path, status)])["traceEvents"] if each["ph"] == "X"]

    assert (event["name"], event["dur"], event["args"]["status"]) == ("torch · epoch 2", 4e6, "running")


def test_a_run_that_noted_nothing_is_told_so(tmp_path):
    with pytest.raises(EmptySelectionError, match=r"timeline\.jsonl"):
        trace([(tmp_path, RUN)])
