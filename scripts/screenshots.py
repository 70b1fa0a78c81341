"""Take the pictures of the chat that the documentation shows: real sessions with the starter model, as SVG.

`python scripts/screenshots.py` in a checkout where `make test` has fetched the model once.
"""

from __future__ import annotations

import html
import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))
from window import Window  # noqa: E402 - lies among the tests

IMAGES = REPOSITORY / "docs" / "images"
COLUMNS, ROWS = 96, 19
CELL_WIDTH, LINE_HEIGHT, MARGIN = 8.4, 18, 14
PAPER, INK = "#12151c", "#d6dae3"
COLOURS = {
    "black": "#3b4252", "red": "#e06c75", "green": "#98c379", "brown": "#e5c07b", "blue": "#61afef",
    "magenta": "#c678dd", "cyan": "#56b6c2", "white": "#d6dae3", "default": INK,
}  # fmt: skip
CODE = "Write a Python function that adds two numbers."
QUESTION = "What is the capital of France? Answer in one sentence."


def svg(window: Window, title: str) -> str:
    """The screen as a picture."""
    screen = window.screen
    last = max((row for row in range(screen.lines) if screen.display[row].strip()), default=0)
    width, height = COLUMNS * CELL_WIDTH + 2 * MARGIN, (last + 1) * LINE_HEIGHT + 2 * MARGIN
    lines = [line for row in range(last + 1) for line in _line(screen.buffer[row], row)]
    style = "font-family: ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; font-size: 14px"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
            f"<title>{html.escape(title)}</title>",
            f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>',
            f'<g style="{style}" xml:space="preserve">',
            *lines,
            "</g>",
            "</svg>",
            "",
        ]
    )


def _line(cells: Any, row: int) -> Iterator[str]:
    """The runs of one style in a row."""
    y = MARGIN + (row + 0.75) * LINE_HEIGHT
    for style, places in groupby(range(COLUMNS), key=lambda column: _style(cells[column])):
        run = list(places)
        text = "".join(cells[column].data for column in run).rstrip()
        if text:
            x, length = MARGIN + run[0] * CELL_WIDTH, len(text) * CELL_WIDTH
            yield f'<text x="{x:.1f}" y="{y:.1f}" textLength="{length:.1f}"{style}>{html.escape(text)}</text>'


def _style(cell: Any) -> str:
    colour = COLOURS.get(cell.fg) or (f"#{cell.fg}" if len(cell.fg) == 6 else INK)
    told = f' fill="{colour}"'
    told += ' font-weight="bold"' if cell.bold else ""
    told += ' font-style="italic"' if cell.italics else ""
    return told + (' text-decoration="underline"' if cell.underscore else "")


def take(name: str, title: str, *questions: str) -> None:
    """One session, and its picture."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "data").mkdir()
        (home / "data" / "models").symlink_to(REPOSITORY / ".cache" / "pensieve" / "data" / "models")
        environ = {"PENSIEVE_HOME": folder, "PENSIEVE_GENERATION_TEMPERATURE": "0"}
        window = Window("chat", "--max-tokens", "260", columns=COLUMNS, rows=ROWS, environ=environ)
        try:
            for question in questions:
                window.expect_prompt()
                window.type(f"{question}\r")
                window.expect("Ctrl-C stops")
            window.expect_prompt()
            window.expect("· cached")
            IMAGES.mkdir(exist_ok=True)
            (IMAGES / f"{name}.svg").write_text(svg(window, title), encoding="utf-8")
            print(window.seen)
        finally:
            window.close()


def main() -> None:
    """Take them all."""
    os.chdir(REPOSITORY)
    take("chat", "A chat in the terminal", QUESTION, CODE)


if __name__ == "__main__":
    main()
