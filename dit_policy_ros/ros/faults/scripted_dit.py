"""``dit_node`` with the scripted policy, as a process."""

from __future__ import annotations

import sys
from functools import partial

from dit_policy_ros.ros.dit_node import DitNode
from dit_policy_ros.ros.faults.scripted_policy import load
from dit_policy_ros.ros.process import run_node

if __name__ == "__main__":
    sys.exit(run_node(partial(DitNode, load=load)))
