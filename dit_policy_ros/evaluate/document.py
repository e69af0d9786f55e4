"""What every page and report file has in common."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from dit_policy_ros.evaluate.page_style import CSS


def document(title: str, sections: Iterable[str]) -> str:
    """Returns a whole HTML page that needs nothing from outside.

    Args:
        title: plain text.
        sections: HTML.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body><main>\n"
        + "\n".join(sections)
        + "\n</main></body></html>\n"
    )


def panels(charts: Mapping[str, str]) -> str:
    """Returns a panel for each chart that is not empty, under its name."""
    return "".join(
        f'<div class="panel"><h3>{escape(name)}</h3>{chart}</div>' for name, chart in charts.items() if chart
    )


def jpeg_source(jpeg: bytes) -> str:
    """Returns the ``src`` of an image that lies in the page."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def json_text(data: Mapping[str, Any]) -> str:
    """Returns indented JSON; NaN is an error, since JSON has none."""
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def write_whole(path: Path, text: str) -> Path:
    """Writes a file, in one step where there is an older one, and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".writing")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return path
