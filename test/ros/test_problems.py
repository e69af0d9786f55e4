from __future__ import annotations

from dit_policy_ros.ros.problems import Problems


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def error(self, message: str) -> None:
        self.lines.append(f"ERROR {message}")

    def info(self, message: str) -> None:
        self.lines.append(f"INFO {message}")


class Story:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.log = Log()
        self.problems = Problems(self.log, grace_s=10.0, clock=lambda: self.now_s)


def test_waiting_for_a_start_is_an_event_and_becomes_an_error_when_it_lasts():
    story = Story()
    story.problems.tell("camera", "none for 0.1 s")
    story.problems.tell("camera", "none for 0.2 s")
    assert story.log.lines == ["INFO waiting, camera: none for 0.1 s"]
    assert not story.problems.are_errors
    story.now_s = 11.0
    story.problems.tell("camera", "none for 11 s")
    story.problems.tell("camera", "none for 12 s")
    assert story.log.lines[1:] == ["ERROR camera: none for 11 s"]
    assert story.problems.are_errors


def test_what_was_well_once_and_fails_is_an_error_at_once():
    story = Story()
    story.problems.tell("camera", "")
    story.problems.tell("camera", "stale")
    story.problems.tell("camera", "")
    assert story.log.lines == ["ERROR camera: stale", "INFO camera: recovered."]


def test_a_new_activation_waits_again():
    story = Story()
    story.problems.tell("camera", "")
    story.problems.tell("camera", "stale")
    story.problems.begin()
    assert story.problems.present == {}
    story.problems.tell("camera", "stale")
    assert story.log.lines[-1] == "INFO waiting, camera: stale"
    assert story.problems.counts["camera"] == 2
