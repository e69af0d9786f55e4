"""A few faults on the real graph. The whole table is made by ``bench faults``; docs/faults.md holds it."""

from __future__ import annotations

import os

import pytest

from dit_policy_ros.__main__ import main
from dit_policy_ros.errors import ConfigError
from dit_policy_ros.ros.faults.catalogue import FAULTS
from dit_policy_ros.ros.faults.stand import Stand
from dit_policy_ros.ros.faults.suite import Instant, rows_of, run_instant, table
from dit_policy_ros.ros.realtime import take_priority

pytestmark = [pytest.mark.ros, pytest.mark.slow]
DOMAIN = 102 + 2 * (os.getpid() % 50)
CHOSEN = (
    "e-stop topic",
    "/executor_node/plan wrong names",
    "/joint_states not a number",
    "/chunk dropped",
    "/chunk frozen",
    "second commander",
    "executor_node killed",
    "disk full",
)


def may_take_priority() -> bool:
    try:
        take_priority(1)
    except ConfigError:
        return False
    finally:
        take_priority(0)
    return True


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory):
    with Stand(tmp_path_factory.mktemp("stand"), DOMAIN, seed=3, record=True) as stand:
        yield stand


@pytest.mark.parametrize("name", CHOSEN)
def test_nothing_unsafe_is_sent_and_the_arms_move_again(stand: Stand, name: str) -> None:
    instant = run_instant(stand, name, FAULTS[name])
    assert instant.violations == ()
    assert instant.recovered_s is not None
    assert instant.messages > 0
    assert (instant.slowing_s is None) == (FAULTS[name].stops_within_s is None)
    assert 0.0 <= instant.delay_s < (1.0 if name.endswith("frozen") else 1e-9)


def test_the_table_counts_what_happened():
    faults = {name: FAULTS[name] for name in ("e-stop topic", "sim_node frozen")}
    done = [
        Instant("e-stop topic", (), 0.01, 0.5, 10, 0.04),
        Instant("e-stop topic", ("something",), 0.03, None, 10),
        Instant("sim_node frozen", (), None, 0.2, 4),
    ]
    first, second = rows_of(done, faults)
    assert (first.instants, first.unsafe, first.recovered, first.slowing_max_s) == (2, 1, 1, 0.03)
    assert second.allowed_s is None
    assert "| e-stop topic | 2 | 1 | 0.02 | 0.03 | 0.02 | 1 | 0.04 |" in table([first, second])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fault", "earthquake"], "'earthquake' does not exist"),
        (["--instants", "0"], "--instants is 0"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], says: str, tmp_path, capsys) -> None:
    assert main(["bench", "faults", "--out", str(tmp_path), *arguments]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("priority", [[], ["--priority", "1"]])
def test_the_executor_is_measured_beside_the_graph(tmp_path, capsys, priority: list[str]) -> None:
    if priority and not may_take_priority():
        pytest.skip("needs the right to a real-time priority")
    out = ["--out", str(tmp_path), "--domain", str(DOMAIN + 1)]
    assert main(["bench", "executor", *out, "--seconds", "4", "--rate", "50", *priority]) == 0
    import json

    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured["periods"] > 50
    assert 0.0 < measured["memory_mb"] < 150.0
    assert measured["foreign_libraries"] == []


def test_a_soak_watches_memory_and_publishers(tmp_path, capsys) -> None:
    out = ["--out", str(tmp_path), "--domain", str(DOMAIN + 1)]
    assert main(["bench", "soak", *out, "--seconds", "4", "--factor", "2"]) == 0
    assert '"unsafe": 0' in capsys.readouterr().out.splitlines()[-1]
    assert (tmp_path / "soak.json").exists()
