"""The recent past of one camera: stamped images, decoded only when they are looked at."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable

import numpy as np

Image = np.ndarray | Callable[[], np.ndarray]
"""(H, W, 3) uint8 RGB, or a function that decodes to it when an observation really needs it."""


class ImageRing:
    """Images of one camera, oldest first, the last ``capacity`` of them."""

    def __init__(self, capacity: int, jump_ns: int = 500_000_000) -> None:
        """Makes an empty ring.

        Args:
            jump_ns: a stamp this far behind the newest means that time jumped back, and the ring starts anew.
        """
        self.jump_ns = jump_ns
        self.duplicates = 0
        """Images dropped because they had the stamp of the newest."""
        self.out_of_order = 0
        """Images dropped because they were older than the newest."""
        self.jumps = 0
        """How often time jumped back."""
        self._stamps_ns: deque[int] = deque(maxlen=capacity)
        self._images: deque[Image] = deque(maxlen=capacity)

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest image; None while empty."""
        return self._stamps_ns[-1] if self._stamps_ns else None

    def clear(self) -> None:
        """Forgets all images."""
        self._stamps_ns.clear()
        self._images.clear()

    def add(self, stamp_ns: int, image: Image) -> None:
        """Adds an image, unless it is no newer than the newest."""
        newest = self.newest_ns
        if newest is not None and stamp_ns <= newest:
            if stamp_ns > newest - self.jump_ns:
                self.duplicates += stamp_ns == newest
                self.out_of_order += stamp_ns < newest
                return
            self.jumps += 1
            self.clear()
        self._stamps_ns.append(stamp_ns)
        self._images.append(image)

    def nearest(self, stamp_ns: int) -> int:
        """Returns the stamp nearest to an instant, the older of two; the ring must not be empty."""
        stamps = self._stamps_ns
        after = bisect_left(stamps, stamp_ns)
        if after == 0:
            return stamps[0]
        if after == len(stamps):
            return stamps[-1]
        return stamps[after] if stamps[after] - stamp_ns < stamp_ns - stamps[after - 1] else stamps[after - 1]

    def image(self, stamp_ns: int) -> np.ndarray:
        """Returns the image of a stamp in the ring."""
        place = bisect_left(self._stamps_ns, stamp_ns)
        image = self._images[place]
        if callable(image):
            image = self._images[place] = image()
        return image
