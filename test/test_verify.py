import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dit_policy_ros.__main__ import main
from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.references.methods import METHODS
from dit_policy_ros.policy.references.networks import RUNNERS
from dit_policy_ros.policy.references.verdicts import verify
from dit_policy_ros.policy.weights import read_tensors

GOLDEN = Path(__file__).parent / "golden"
QUICK = ("gpc", "h_rdt", "lerobot_multi_task_dit_abs", "mdtv", "uwm")


@pytest.fixture
def copied(tmp_path):
    """Copies a reference directory and returns it with its ``reference.json``."""

    def copy(name):
        directory = tmp_path / name
        directory.mkdir()
        for file in (GOLDEN / name).iterdir():
            shutil.copyfile(file, directory / file.name)
        return directory, json.loads((directory / "reference.json").read_text())

    return copy


def write(directory, data):
    (directory / "reference.json").write_text(json.dumps(data))


def test_every_reference_directory_has_a_runner():
    families = {json.loads(file.read_text())["family"] for file in GOLDEN.glob("*/reference.json")}
    assert families == {*METHODS, *RUNNERS}


@pytest.mark.parametrize("name", QUICK)
def test_every_case_is_listed_and_passes(capsys, name):
    assert main(["verify", str(GOLDEN / name)]) == 0
    cases = json.loads((GOLDEN / name / "reference.json").read_text())["cases"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:-1]] == [case["name"] for case in cases]
    assert all(line.endswith("  ok") for line in lines[2:-1])
    assert lines[-1] == f"  {len(cases)} of {len(cases)} cases pass."


@pytest.mark.parametrize("name", ["gpc", "mdt"])
def test_another_value_fails_its_case_only(copied, capsys, name):
    directory, data = copied(name)
    arrays = read_tensors(directory / "cases.safetensors")
    case = data["cases"][0]
    output = next(iter(case["outputs"]))
    key = f"{case['name']}.{output}"
    arrays[key] = arrays[key] + 1e-2
    save_file(arrays, directory / "cases.safetensors")
    assert main(["verify", str(directory)]) == 1
    assert [v.status for v in verify(directory)] == ["FAILED"] + ["ok"] * (len(data["cases"]) - 1)
    assert f"FAILED: {output}" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "scale"), [("mdt", 1.0), ("h_rdt", 90.0)])
def test_the_error_is_absolute_unless_the_directory_says_otherwise(copied, name, scale):
    directory, data = copied(name)
    write(directory, {**data, "cases": [case for case in data["cases"] if case["name"] == "loss"]})
    arrays = read_tensors(directory / "cases.safetensors")
    true = arrays["loss.loss"].item()
    arrays["loss.loss"] = torch.full_like(arrays["loss.loss"], 90.0)
    save_file(arrays, directory / "cases.safetensors")
    (verdict,) = verify(directory)
    assert verdict.error == pytest.approx((90.0 - true) / scale, rel=1e-3)
    assert verdict.status == "FAILED"


@pytest.mark.parametrize(
    ("name", "entry"), [("gpc", "operation"), ("mode", "kind"), ("uwm", "kind"), ("rdt", "kind"), ("gr00t_n16", "kind")]
)
def test_an_unknown_case_is_listed_and_fails(copied, capsys, name, entry):
    directory, data = copied(name)
    write(directory, {**data, "cases": [{**data["cases"][0], entry: "levitate"}, data["cases"][-1]]})
    assert main(["verify", str(directory)]) == 1
    out = capsys.readouterr().out
    assert "unknown" in out
    assert "levitate" in out
    assert "1 of 2 cases pass." in out


def test_a_case_of_a_known_kind_and_an_unknown_name_is_unknown(copied):
    directory, data = copied("rdt")
    case = next(case for case in data["cases"] if case["name"] == "adapters")
    arrays = read_tensors(directory / "cases.safetensors")
    for new in ("adapters_again", "levitation"):
        arrays |= {k.replace("adapters.", f"{new}."): v.clone() for k, v in arrays.items() if k.startswith("adapters.")}
    save_file(arrays, directory / "cases.safetensors")
    write(directory, {**data, "cases": [{**case, "name": "adapters_again"}, {**case, "name": "levitation"}]})
    assert [verdict.status for verdict in verify(directory)] == ["ok", "unknown"]


def test_an_unknown_family_lists_every_case(copied, capsys):
    directory, data = copied("gpc")
    write(directory, {**data, "family": "telepathy"})
    assert main(["verify", str(directory)]) == 1
    out = capsys.readouterr().out
    assert out.count("unknown: Family 'telepathy' does not exist") == len(data["cases"])


@pytest.mark.parametrize("name", ["mode", "rtc"])
def test_a_case_that_lacks_an_array_fails_and_the_others_run(copied, name):
    directory, data = copied(name)
    arrays = read_tensors(directory / "cases.safetensors")
    case = next(case for case in data["cases"] if case["inputs"])
    del arrays[f"{case['name']}.{next(iter(case['inputs']))}"]
    save_file(arrays, directory / "cases.safetensors")
    verdicts = list(verify(directory))
    assert [v.case for v in verdicts if v.status != "ok"] == [case["name"]]
    assert "cases.safetensors lacks" in next(v.reason for v in verdicts if v.status != "ok")


def test_inputs_of_another_shape_fail_with_the_reason(copied):
    directory, data = copied("cogact")
    data["cases"] = [case for case in data["cases"] if case["name"] == "denoise_t0"]
    write(directory, data)
    arrays = read_tensors(directory / "cases.safetensors")
    arrays["denoise_t0.noisy_actions"] = arrays["denoise_t0.noisy_actions"][..., :-1]
    save_file({k: v.contiguous() for k, v in arrays.items()}, directory / "cases.safetensors")
    (verdict,) = verify(directory)
    assert (verdict.status, verdict.error) == ("FAILED", float("inf"))
    assert "RuntimeError" in verdict.reason


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cases": []}, "proves nothing"),
        ({"cases": [{"name": "a", "inputs": [], "outputs": [], "tolerance": 1}]}, "lacks outputs"),
        ({"cases": [{"name": "a", "inputs": [], "outputs": ["x"]}]}, "lacks tolerance"),
        ({"cases": [{"name": "a", "inputs": [], "outputs": ["x"], "tolerance": 1}] * 2}, "appear twice"),
    ],
)
def test_a_directory_that_proves_nothing_is_refused(copied, change, text):
    directory, data = copied("gpc")
    write(directory, {**data, **change})
    with pytest.raises(CheckpointError, match=text):
        list(verify(directory))


def test_what_cannot_be_read_exits_with_2(copied, tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    directory, _ = copied("cogact")
    weights = directory / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert main(["verify", str(directory)]) == 2
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize("rows", [(0,), (1, 0, 1)])
@pytest.mark.parametrize("name", sorted(RUNNERS))
def test_other_batch_sizes_verify(copied, name, rows):
    directory, data = copied(name)
    arrays = read_tensors(directory / "cases.safetensors")
    data["cases"] = [case for case in data["cases"] if case["kind"] == "denoise" and "trace" not in case["name"]]
    for case in data["cases"]:
        for array in (*case["inputs"], *case["outputs"]):
            key = f"{case['name']}.{array}"
            # The caches of RDT2 have their layers first.
            arrays[key] = arrays[key].index_select(int(array.startswith("kv_")), torch.tensor(rows)).contiguous()
    save_file(arrays, directory / "cases.safetensors")
    write(directory, data)
    verdicts = list(verify(directory))
    assert len(verdicts) > 2
    assert {verdict.status for verdict in verdicts} == {"ok"}


def test_a_case_may_ask_for_other_steps_and_levels(copied):
    directory, data = copied("mdt")
    case = next(case for case in data["cases"] if case["kind"] == "sample")
    data["cases"] = [{**case, "outputs": ["sigmas"], "settings": {"steps": 2, "sigma_min": 1.0}}]
    arrays = read_tensors(directory / "cases.safetensors")
    arrays[f"{case['name']}.sigmas"] = torch.tensor([80.0, 1.0, 0.0])
    save_file(arrays, directory / "cases.safetensors")
    write(directory, data)
    assert [verdict.status for verdict in verify(directory)] == ["ok"]


def test_routing_with_goals_has_a_row_for_each(copied):
    directory, data = copied("mode")
    data["config"]["inner_model"]["use_goal_in_routing"] = True
    case = next(case for case in data["cases"] if case["name"] == "routing")
    data["cases"] = [{**case, "inputs": ["sigma", "goal"], "outputs": ["probabilities"]}]
    write(directory, data)
    arrays = read_tensors(directory / "cases.safetensors")
    arrays["routing.goal"] = arrays["loss.goal"].clone()
    arrays["routing.probabilities"] = torch.zeros(10, 3, 2, 4)
    save_file(arrays, directory / "cases.safetensors")
    verdict = next(iter(verify(directory)))
    assert 0.0 < verdict.error < 1.0  # compared row by row, of other values


def test_a_directory_that_is_no_reference_says_what_to_use_instead(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    assert "has no reference.json" in capsys.readouterr().err


MALFORMED = [
    ({"family": ["mode"]}, "'family' is .* must be a text"),
    ({"config": None}, "'config' is None; it must be an object"),
    ({"config": []}, "'config' is .* must be an object"),
    ({"config": {}}, "config"),
    ({"cases": [None]}, "case 0 is None; it must be an object"),
    ({"tolerance_meaning": 3}, "'tolerance_meaning' is 3"),
]
MALFORMED_CASES = [
    *({"tolerance": value} for value in ("1e-3", None, True, [1], -1.0, float("nan"), float("inf"))),
    *({"name": value} for value in (3, ["a"], "")),
    *({"inputs": value} for value in ("x", {"x": 1}, [1], None)),
    *({"outputs": value} for value in ("x", [1], None)),
    *({entry: ["a"]} for entry in ("kind", "operation", "settings", "parameters", "weights")),
]


@pytest.mark.parametrize(("change", "text"), MALFORMED)
def test_a_malformed_reference_is_one_line_and_2(copied, capsys, change, text):
    directory, data = copied("gr00t_n16")
    write(directory, {**data, **change})
    assert main(["verify", str(directory)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(text, line)


@pytest.mark.parametrize("change", MALFORMED_CASES, ids=repr)
@pytest.mark.parametrize("name", ["gpc", "gr00t_n16"])
def test_a_malformed_case_is_one_line_and_2(copied, capsys, name, change):
    directory, data = copied(name)
    write(directory, {**data, "cases": [{**data["cases"][0], **change}, *data["cases"][1:]]})
    assert main(["verify", str(directory)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"case 0: '{next(iter(change))}' is .*it must be", line)


def test_a_warm_start_of_a_first_query_alone_verifies(copied):
    directory, data = copied("rti_dp")
    case, arrays = data["cases"][0], read_tensors(directory / "cases.safetensors")
    cut = {"obs": 1, "guess": 1, "action_pred": 1, "action": 1, "step_noise": 0}
    arrays |= {f"{case['name']}.{name}": arrays[f"{case['name']}.{name}"][:rows] for name, rows in cut.items()}
    case["outputs"] = [name for name in case["outputs"] if not name.startswith("rti_")]
    write(directory, {**data, "cases": [case]})
    save_file({name: value.contiguous() for name, value in arrays.items()}, directory / "cases.safetensors")
    (verdict,) = verify(directory)
    assert verdict.status == "ok", verdict.reason


def test_one_guided_evaluation_at_a_scale_below_1_verifies(copied):
    directory, data = copied("cogact")
    case = next(case for case in data["cases"] if case["kind"] == "denoise_guided")
    arrays, name = read_tensors(directory / "cases.safetensors"), f"{case['name']}.predicted_noise"
    given, null = arrays[f"{name}_conditional"], arrays[f"{name}_unconditional"]
    write(directory, {**data, "cases": [{**case, "settings": {**case["settings"], "cfg_scale": 0.25}}]})
    save_file(arrays | {name: null + 0.25 * (given - null)}, directory / "cases.safetensors")
    (verdict,) = verify(directory)
    assert verdict.status == "ok", verdict.reason
