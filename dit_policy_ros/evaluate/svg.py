"""A small chart in SVG: two linear axes with round ticks. Colours come from the page, so that light and dark work."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10

import numpy as np

_MARGIN_LEFT, _MARGIN_RIGHT, _MARGIN_TOP, _MARGIN_BOTTOM = 44, 10, 10, 32
MOST_POINTS = 600


def ticks(low: float, high: float, count: int) -> list[float]:
    """Returns about ``count`` round values within [low, high]: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** floor(log10(raw))
    step = min(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = ceil(low / step - 1e-9)
    last = floor(high / step + 1e-9)
    if last < first:  # The step spans more than the range.
        return ticks(low, high, count + 1)
    return [round(k * step, 12) for k in range(first, last + 1)]


class Chart:
    """Collects marks in data coordinates; ``render`` returns the SVG text."""

    def __init__(
        self,
        title: str,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        width: int = 520,
        height: int = 190,
        bare: bool = False,
    ) -> None:
        """Makes an empty chart.

        Args:
            title: read out by screen readers and shown on hover.
            x_range: first and last x, apart.
            y_range: lowest and highest y, apart.
            width: of the view box; the page scales it.
            height: of the view box.
            bare: small margins, for a small multiple.
        """
        self.width, self.height = width, height
        self._title = title
        self._x0, self._x1 = x_range
        self._y0, self._y1 = y_range
        self._left = 36 if bare else _MARGIN_LEFT
        self._bottom = 18 if bare else _MARGIN_BOTTOM
        self._parts: list[str] = []

    def x(self, value: float) -> float:
        """Returns the horizontal place of an x."""
        share = (value - self._x0) / (self._x1 - self._x0)
        return self._left + share * (self.width - self._left - _MARGIN_RIGHT)

    def y(self, value: float) -> float:
        """Returns the vertical place of a y."""
        share = (value - self._y0) / (self._y1 - self._y0)
        return self.height - self._bottom - share * (self.height - self._bottom - _MARGIN_TOP)

    def axes(self, x_label: str = "", unit: str = "", x_ticks: int = 6, y_ticks: int = 4) -> None:
        """Draws grid lines, tick labels with the unit of y, and the name of x."""
        left, right = self.x(self._x0), self.x(self._x1)
        bottom = self.y(self._y0)
        for value in ticks(self._y0, self._y1, y_ticks):
            at = self.y(value)
            self._parts.append(f'<path class="grid" d="M{left:.1f} {at:.1f}H{right:.1f}"/>')
            self.text(left - 5, at + 3.5, f"{value:g}{unit}", "tick", "end")
        for value in ticks(self._x0, self._x1, x_ticks):
            self.text(self.x(value), bottom + 13, f"{value:g}", "tick", "middle")
        self._parts.append(f'<path class="axis" d="M{left:.1f} {bottom:.1f}H{right:.1f}"/>')
        if x_label:
            self.text((left + right) / 2, self.height - 4, x_label, "label", "middle")

    def text(self, at_x: float, at_y: float, text: str, kind: str, anchor: str) -> None:
        """Writes at a place of the view box."""
        self._parts.append(
            f'<text class="{kind}" x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def line(self, xs: np.ndarray, ys: np.ndarray, kind: str) -> None:
        """Draws a line, broken where y is NaN; long ones are thinned to every n-th point."""
        step = max(1, ceil(len(xs) / MOST_POINTS))
        path, pen = [], "M"
        for x_value, y_value in zip(xs[::step], ys[::step], strict=True):
            if not np.isfinite(y_value):
                pen = "M"
                continue
            path.append(f"{pen}{self.x(x_value):.1f} {self.y(y_value):.1f}")
            pen = "L"
        self._parts.append(f'<path class="line {kind}" d="{"".join(path)}"/>')

    def bars(self, edges: np.ndarray, heights: np.ndarray, kind: str) -> None:
        """Draws a histogram; each bar tells its range and count on hover."""
        bottom = self.y(self._y0)
        for low, high, height in zip(edges[:-1], edges[1:], heights, strict=True):
            if height > 0:
                left, top, width = self.x(low), self.y(height), max(self.x(high) - self.x(low) - 1, 0.5)
                self._parts.append(
                    f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
                    f'height="{bottom - top:.1f}"><title>{low:.3g} to {high:.3g}: {height:g}</title></rect>'
                )

    def verticals(self, xs: Sequence[float], kind: str, label: str = "") -> None:
        """Draws lines over the whole height, and a label at the first."""
        top, bottom = self.y(self._y1), self.y(self._y0)
        path = "".join(f"M{self.x(value):.1f} {top:.1f}V{bottom:.1f}" for value in xs)
        self._parts.append(f'<path class="{kind}" d="{path}"/>')
        if label and len(xs):
            at = self.x(xs[0])
            right_half = at > self.width * 0.7
            self.text(at + (-4 if right_half else 4), top + 9, label, "label", "end" if right_half else "start")

    def render(self) -> str:
        """Returns the SVG element."""
        title = escape(self._title)
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{title}">'
            f"<title>{title}</title>{''.join(self._parts)}</svg>"
        )
