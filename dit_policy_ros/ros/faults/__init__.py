"""Drives the real nodes against the simulated body, breaks something, and judges what was commanded meanwhile."""
