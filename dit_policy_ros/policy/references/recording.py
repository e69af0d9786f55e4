"""Watches what modules are called with and what they return."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn


class Call(NamedTuple):
    """One call of a module."""

    arguments: tuple[Any, ...]
    output: Tensor


class Recording:
    """Context manager that keeps every call of the named modules in ``calls``."""

    def __init__(self, **modules: nn.Module) -> None:
        self.calls: dict[str, list[Call]] = {name: [] for name in modules}
        self._modules = modules
        self._handles: list[Any] = []

    def __enter__(self) -> Recording:
        for name, module in self._modules.items():
            calls = self.calls[name]
            # Bound now, because the loop variable changes.
            self._handles.append(
                module.register_forward_hook(
                    lambda _, arguments, output, calls=calls: calls.append(Call(arguments, output))
                )
            )
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def outputs(self, name: str) -> list[Tensor]:
        """Returns what each call of a module returned."""
        return [call.output for call in self.calls[name]]

    def arguments(self, name: str, position: int) -> list[Any]:
        """Returns the positional argument of each call of a module."""
        return [call.arguments[position] for call in self.calls[name]]

    def states(self, name: str, position: int, last: Tensor) -> list[Tensor]:
        """Returns the sample before each call of a denoiser but the first, and the last sample."""
        return [*self.arguments(name, position)[1:], last]
