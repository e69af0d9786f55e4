"""Every error this package raises on purpose. A message says what was wrong, what is allowed, what to do."""


class DitPolicyError(Exception):
    """Base of all errors a user can mend. The command line prints its text without a traceback."""


class RobotError(DitPolicyError):
    """A robot description is wrong, or a message does not fit it."""


class PolicyError(DitPolicyError):
    """A policy cannot run on what it was given."""


class CheckpointError(PolicyError):
    """A checkpoint is missing, foreign, or does not fit the network."""


class BagError(DitPolicyError):
    """A recording cannot be read, or lacks what was asked of it."""


class WorldError(DitPolicyError):
    """A simulated world is unknown or was used wrongly."""


class ConfigError(DitPolicyError):
    """A configuration file or option is malformed."""


def one_of(what: str, got: object, allowed: object) -> str:
    """Returns "<what> 'got' does not exist. Available: a, b." for an error message."""
    names = ", ".join(sorted(str(name) for name in allowed))  # type: ignore[attr-defined]
    return f"{what} '{got}' does not exist. Available: {names}."
