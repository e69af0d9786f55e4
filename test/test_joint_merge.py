"""Joints of several sources, merged into samples of all."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.actions.joint_merge import JointMerge


def line(names, time_ns):
    """Joint k is at k plus the time, so a linear interpolation is exact."""
    return np.array([[float(ord(name)) + 1e-6 * time_ns for name in names]])


@given(
    arrivals=st.lists(st.tuples(st.sampled_from(["ab", "cb", "d"]), st.integers(1, 40)), min_size=1, max_size=60),
)
def test_a_sample_holds_every_joint_at_one_instant_and_time_only_grows(arrivals):
    merge = JointMerge("dbca")
    clock = dict.fromkeys(["ab", "cb", "d"], 0)
    last_ns = 0
    for names, step in arrivals:
        clock[names] += step * 1000
        found = merge.add({"ab": 0, "cb": 1, "d": 1}[names], clock[names], names, line(names, clock[names]))
        if found is not None:
            time_ns, values = found
            assert last_ns < time_ns == min(clock.values())
            np.testing.assert_allclose(values, line("dbca", time_ns), rtol=0, atol=1e-9)
            last_ns = time_ns


def test_a_joint_of_two_topics_belongs_to_the_first_in_the_description():
    merge = JointMerge("ab")
    merge.add(1, 10, "ab", np.array([[1.0, 2.0]]))
    merge.add(1, 20, "ab", np.array([[1.0, 2.0]]))
    merge.add(0, 15, "a", np.array([[9.0]]))
    assert merge.add(0, 25, "a", np.array([[9.0]])) is None
    time_ns, values = merge.add(1, 30, "ab", np.array([[1.0, 2.0]]))
    assert (time_ns, values.tolist()) == (25, [[9.0, 2.0]])


def test_what_is_missing_is_named():
    merge = JointMerge("abc")
    assert merge.add(0, 10, "a", np.array([[1.0]])) is None
    assert merge.missing == ("b", "c")
    merge.clear()
    assert merge.missing == ("a", "b", "c")


def test_a_source_that_stands_still_holds_the_others_back():
    merge = JointMerge("ab")
    merge.add(0, 10, "a", np.array([[1.0]]))
    merge.add(1, 10, "b", np.array([[1.0]]))
    assert all(merge.add(0, time_ns, "a", np.array([[1.0]])) is None for time_ns in range(20, 90, 10))
