"""What Perfetto's reader makes of a trace in JSON, by its own rules: what it would drop, and how it names threads.

Source:
    google/perfetto, src/trace_processor/importers/json (times: microseconds as a double, multiplied by 1000 and cut
    off, or a whole number times 1000; `thread_name` by number) and importers/common/slice_tracker.cc (a complete event
    that begins within another of its thread and ends after it is dropped). Read, since its reader is no package.
"""


def nanoseconds(value):
    """A time as the reader has it."""
    return value * 1000 if isinstance(value, int) else int(value * 1000.0)


def read(trace):
    """Its slices as (process, thread, begin, end) with their names, in nanoseconds, and the dropped ones.

    Args:
        trace: the parsed file.
    """
    # Read as the unit of every time by versions of before 2023, wherever it stands in the first part of a file.
    assert "displayTimeUnit" not in trace
    slices, dropped, names, open_slices = [], [], {}, {}
    events = trace["traceEvents"]
    for event in events:
        # One level of objects: an array as a value of an event is refused.
        assert not any(isinstance(value, list) for value in event.values())
        if event["name"] == "thread_name":
            assert event["tid"] not in names, "two threads of one number"
            names[event["tid"]] = event["args"]["name"]
        if event["ph"] == "C":
            assert all(isinstance(value, int | float) for value in event["args"].values())
    timed = [event for event in events if event["ph"] == "X"]
    for event in sorted(timed, key=lambda event: nanoseconds(event["ts"])):
        begin = nanoseconds(event["ts"])
        end = begin + nanoseconds(event["dur"])
        assert begin >= 0 and end >= begin and event["tid"] in names
        stack = open_slices.setdefault(event["tid"], [])
        while stack and (stack[-1][1] < begin or (stack[-1][1] == begin and not stack[-1][0] == begin == end)):
            stack.pop()
        if stack and begin < stack[-1][1] < end:
            dropped.append(event)
            continue
        stack.append((begin, end))
        slices.append((event["pid"], event["tid"], begin, end, event["name"], len(stack)))
    return slices, dropped
