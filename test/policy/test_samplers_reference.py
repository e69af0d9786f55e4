import pytest
from reference_cases import cases, check


@pytest.mark.parametrize(("family", "case"), cases("solvers", "sdp", "rti_dp"))
def test_samplers(family, case):
    check(family, case)
