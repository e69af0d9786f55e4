import pytest
from reference_cases import cases, check


@pytest.mark.parametrize(("family", "case"), cases("taylorseer", "bac"))
def test_caching(family, case):
    check(family, case)
