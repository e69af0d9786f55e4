"""What the tests of the official families share."""

import json
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file

from dit_policy_ros.policy.families import FAMILIES
from dit_policy_ros.policy.references.directory import load_reference
from dit_policy_ros.policy.references.networks import compare, load_reference_network

GOLDEN = Path(__file__).parents[2] / "golden"


@cache
def reference(family):
    return load_reference(GOLDEN / family)


@cache
def network(family):
    return load_reference_network(reference(family))


def case_names(family):
    names = [case["name"] for case in json.loads((GOLDEN / family / "reference.json").read_text())["cases"]]
    assert names
    return names


def check_case(family, name, net=None):
    comparisons = list(compare(reference(family), net or network(family), name))
    assert {c.output for c in comparisons} == set(reference(family).cases[name]["outputs"])
    assert [c for c in comparisons if not c.ok] == []


def inputs(family, case):
    found = reference(family)
    return {name: found.array(case, name) for name in found.cases[case]["inputs"]}


def passes(family, name, net):
    return all(c.ok for c in compare(reference(family), net, name))


def random_network(family, config, seed=0):
    """A network of this configuration whose every parameter is drawn, positions and gates included."""
    torch.manual_seed(seed)
    net = FAMILIES[family].build(config).eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2)
    return net


def save_checkpoint(net, directory, settings=None, prefix=""):
    """Writes a directory as a release has it: safetensors, and ``config.json`` where there are settings."""
    directory.mkdir(exist_ok=True)
    tensors = {prefix + name: value.contiguous() for name, value in net.state_dict().items()}
    save_file(tensors, directory / "model.safetensors")
    if settings is not None:
        (directory / "config.json").write_text(json.dumps(settings))
    return directory


@contextmanager
def no_calls(*modules):
    """Fails when one of these modules is called inside."""

    def refuse(module, arguments):
        raise AssertionError(f"{module} was called, which encode should have spared.")

    handles = [module.register_forward_pre_hook(refuse) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def modules_named(net, *endings):
    """Modules whose dotted name ends with one of these."""
    found = [module for name, module in net.named_modules() if name.endswith(endings)]
    assert found
    return found


def assert_close(got, expected, tolerance=1e-5):
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def scrambled(x, keep):
    """x (B, L, D) with other values where ``keep`` (B, L) is False."""
    return torch.where(keep[..., None], x, 7.0 - 3.0 * x)
