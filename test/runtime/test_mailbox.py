from __future__ import annotations

import threading

from dit_policy_ros.runtime.mailbox import Mailbox


def test_the_newest_wins_and_the_lost_are_counted():
    box: Mailbox[int] = Mailbox()
    assert box.take() is None
    for value in (1, 2, 3):
        box.put(value)
    assert (box.take(), box.overwritten) == (3, 2)
    assert box.take() is None
    box.put(4)
    assert (box.take(), box.overwritten) == (4, 2)


def test_a_waiting_taker_is_woken():
    box: Mailbox[str] = Mailbox()
    taken: list[str | None] = []
    taker = threading.Thread(target=lambda: taken.append(box.take(timeout_s=60.0)))
    taker.start()
    box.put("hello")
    taker.join(60.0)
    assert taken == ["hello"]


def test_many_threads_lose_nothing_uncounted():
    box: Mailbox[int] = Mailbox()
    taken: list[int] = []

    def produce() -> None:
        for value in range(500):
            box.put(value)

    def consume() -> None:
        while (value := box.take(timeout_s=1.0)) is not None:
            taken.append(value)

    consumer = threading.Thread(target=consume)
    producers = [threading.Thread(target=produce) for _ in range(4)]
    for thread in (consumer, *producers):
        thread.start()
    for thread in (*producers, consumer):
        thread.join(60.0)
    assert len(taken) + box.overwritten == 2000
