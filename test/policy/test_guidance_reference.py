import pytest
from reference_cases import cases, check


@pytest.mark.parametrize(("family", "case"), cases("rtc", "gpc", "eadp"))
def test_guidance(family, case):
    check(family, case)
