import numpy as np
import pytest

from dit_policy_ros.evaluate.plots import histogram


@pytest.mark.parametrize(("scale", "median"), [(0.00123, "0.0012"), (1.46, "1.5"), (14.6, "15"), (142.3, "142")])
def test_labels_are_plain_numbers(scale, median):
    page = histogram(np.full(50, scale), "Latency", "duration [ms]")
    assert f"median {median}<" in page
    assert "e+" not in page


def test_what_is_not_known_is_no_picture():
    assert histogram(np.full(3, np.nan), "Latency", "duration [ms]") == ""
