"""Tables that spill to disk, and exact quantiles of what does not fit into memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dit_policy_ros.data import quantiles as quantiles_module
from dit_policy_ros.data import scratch
from dit_policy_ros.data.quantiles import quantiles, without_nan
from dit_policy_ros.data.scratch import ScratchTable, passes, release, reordered, thinned


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Blocks of few rows, so that little data takes every path."""
    monkeypatch.setattr(scratch, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(scratch, "_PASS_ROWS", 5)
    monkeypatch.setattr(quantiles_module, "_FEW", 4)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(-99, 99)),
        st.tuples(st.just("extend"), st.integers(0, 40)),
        st.tuples(st.just("truncate"), st.floats(0, 1)),
        st.tuples(st.just("look"), st.none()),
    ),
    max_size=30,
)


@settings(max_examples=200)
@given(steps=steps, width=st.sampled_from([0, 3]))
def test_a_table_is_a_list_of_rows(steps, width):
    table, known, count = ScratchTable(width, np.int64), [], 0

    def row(value):
        return [value, value + 1, value + 2] if width else value

    for what, value in steps:
        if what == "append":
            table.append(row(value))
            known.append(row(value))
        elif what == "extend":
            rows = [row(count + k) for k in range(value)]
            count += value
            table.extend(np.array(rows).reshape(-1, *([width] if width else [])))
            known += rows
        elif what == "truncate":
            kept = round(value * len(known))
            table.truncate(kept)
            del known[kept:]
        else:
            np.testing.assert_array_equal(table.array(), np.array(known).reshape(table.array().shape))
    assert len(table) == len(known)
    assert table.array().tolist() == known
    assert [value for part in table.passes() for value in part.tolist()] == known


@settings(max_examples=200)
@given(batches=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=20), max_size=6), sought=st.integers(-5, 900))
def test_the_place_of_a_number_among_increasing_ones(batches, sought):
    table, known = ScratchTable(dtype=np.int64), []
    for batch in batches:
        for step in batch:
            known.append((known[-1] if known else 0) + step)
            table.append(known[-1])
        assert table.first_at_or_after(sought) == sum(value < sought for value in known)


def test_what_was_looked_at_is_let_go_and_read_again():
    table = ScratchTable(2)
    table.extend(np.arange(4000.0).reshape(-1, 2))
    array = table.array()
    assert array[1999, 1] == 3999.0
    release(array, np.zeros(3))
    assert array.sum() == np.arange(4000.0).sum()
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1.0
    del table
    assert array[7, 1] == 15.0


def test_an_order_is_taken_on_disk_as_in_memory():
    rows = np.arange(300.0).reshape(-1, 3)
    index = np.random.default_rng(3).permutation(100)
    np.testing.assert_array_equal(reordered(rows, index), rows[index])
    assert sum(len(part) for part in passes(rows)) == 100
    for step in (1, 3, 7, 200):
        np.testing.assert_array_equal(thinned(rows, step), rows[::step])
    assert thinned(rows[:0], 3).shape == (0, 3)


fractions = st.lists(st.floats(0, 1), min_size=1, max_size=4)
numbers = st.one_of(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=60).map(lambda values: np.array(values, np.int64)),
    st.lists(st.integers(-3, 3), min_size=1, max_size=60).map(lambda values: np.array(values, np.int64)),
    st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=60).map(np.array),
)


@settings(max_examples=200)
@given(values=numbers, fractions=fractions)
def test_quantiles_are_those_of_numpy(values, fractions):
    expected = np.quantile(values.astype(np.float64), fractions)
    np.testing.assert_allclose(quantiles(values, fractions), expected, rtol=1e-12, atol=1e-12 * np.abs(values).max())


def test_what_is_not_known_does_not_count():
    values = np.array([[1.0, np.nan], [np.nan, 2.0], [3.0, 4.0]])
    assert without_nan(values).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert len(without_nan(np.array(np.nan))) == 0
