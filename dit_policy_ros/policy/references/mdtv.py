"""Runs the reference cases of MDT-V, which are those of MDT."""

from __future__ import annotations

from dit_policy_ros.policy.references.mdt import CASES, run, settings

__all__ = ["CASES", "run", "settings"]
