"""What drawing an answer costs: share of a core at 100 tokens a second, and memory over an answer of 50,000 tokens.

The drawing is the chat's own; the terminal is a file that takes everything. Also: from the command to the first prompt.
"""

from __future__ import annotations

import asyncio
import gc
import io
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import report
from pensieve.cli.chat.drawing.painter import Size
from pensieve.cli.chat.drawing.theme import THEMES
from pensieve.cli.chat.live import LiveScreen
from pensieve.cli.chat.loop import FRAME_SECONDS, LoopThread
from pensieve.generation import GenerationEvent, TextDelta, ThinkingDelta, ThinkingFinished

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))
from window import Window  # noqa: E402 - lies among the tests

TOKENS_PER_SECOND = 100
NUM_TOKENS = 50_000
LIVE_SECONDS = 20
STARTS = 7
TARGET_PERCENT, TARGET_START_SECONDS = 5.0, 0.7
ANSWER = """## How it is done

First, **read the file** with `open`, then look at *each line*; see [the docs](https://example.com/docs) for more.

- one thing that is short
- another one, which is long enough that it has to go on below itself in a window of usual width

| name | meaning |
|---|---|
| `a` | the first letter, told at some length |

```python
def count(path: str) -> dict[str, int]:
    # words and how often they come
    return Counter(word for line in open(path) for word in line.split())
```

"""


def tokens() -> Iterator[GenerationEvent]:
    """An endless answer, some four characters a token."""
    for _ in range(200):
        yield ThinkingDelta(" hm,")
    yield ThinkingFinished()
    while True:
        for start in range(0, len(ANSWER), 4):
            yield TextDelta(ANSWER[start : start + 4])


def one_line() -> Iterator[GenerationEvent]:
    """An endless answer without a single line's end."""
    while True:
        yield TextDelta("word ")


def drawn(events: Iterator[GenerationEvent]) -> tuple[float, list[float]]:
    """CPU seconds for all tokens, drawn in frames as at 100 a second; KiB held after each tenth."""
    screen = LiveScreen(open(os.devnull, "w", encoding="utf-8"), THEMES["terminal"], lambda: Size(100, 40))  # noqa: PTH123, SIM115
    per_frame = round(TOKENS_PER_SECOND * FRAME_SECONDS)
    held: list[float] = []
    screen.begin()
    began = time.process_time()
    for number in range(NUM_TOKENS):
        screen.draw(next(events))
        if number % per_frame == 0:
            screen.refresh()
        if tracemalloc.is_tracing() and number % (NUM_TOKENS // 10) == 0:
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0] / 1024)
    screen.end()
    return time.process_time() - began, held


async def paced(seconds: float) -> AsyncGenerator[GenerationEvent, None]:
    """Tokens at 100 a second, on a clock."""
    began, events = time.monotonic(), tokens()
    for number in range(round(seconds * TOKENS_PER_SECOND)):
        await asyncio.sleep(max(0.0, began + number / TOKENS_PER_SECOND - time.monotonic()))
        yield next(events)


def live_share() -> float:
    """Share of a core, in per cent, of the whole path: event loop, queue, drawing, writing."""
    screen = LiveScreen(io.StringIO(), THEMES["terminal"], lambda: Size(100, 40))
    with LoopThread() as loop:
        began, began_cpu = time.monotonic(), time.process_time()
        with loop.stream(paced(LIVE_SECONDS)) as stream:
            screen.begin()
            for batch in stream:
                for event in batch:
                    screen.draw(event)
                screen.refresh()
        return 100 * (time.process_time() - began_cpu) / (time.monotonic() - began)


def start_seconds() -> tuple[float, float]:
    """From the command to a prompt that can be typed at: on the clock, and of a core."""
    home = Path(tempfile.mkdtemp())
    (home / "data").mkdir()
    (home / "data" / "models").symlink_to(REPOSITORY / ".cache" / "pensieve" / "data" / "models")
    began = time.monotonic()
    window = Window("chat", environ={"PENSIEVE_HOME": str(home)})
    try:
        window.expect_prompt()
        seconds = time.monotonic() - began
        cpu = sum(float(each) for each in Path(f"/proc/{window.process.pid}/stat").read_text().split()[13:15])
    finally:
        window.close()
    return seconds, cpu / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, print, write."""
    markdown, _ = drawn(tokens())
    line, _ = drawn(one_line())
    tracemalloc.start()
    _, held = drawn(tokens())
    tracemalloc.stop()
    live = live_share()
    starts = [start_seconds() for _ in range(STARTS)]
    per_token = TOKENS_PER_SECOND / NUM_TOKENS * 100
    first, cpu = report.median([each for each, _ in starts]), report.median([each for _, each in starts])
    rows = [
        ("Markdown, drawing alone, % of a core at 100 tokens/s", f"{markdown * per_token:.2f}", f"< {TARGET_PERCENT}"),
        ("one line of 50,000 tokens, % of a core at 100 tokens/s", f"{line * per_token:.2f}", f"< {TARGET_PERCENT}"),
        (f"whole path, {LIVE_SECONDS} s on the clock, % of a core", f"{live:.2f}", f"< {TARGET_PERCENT}"),
        ("memory held after 10 % of 50,000 tokens, KiB", f"{held[1]:.0f}", ""),
        ("memory held after 90 %, KiB", f"{held[9]:.0f}", "the same"),
        (f"command to first prompt, median of {STARTS}, s", f"{first:.2f}", f"< {TARGET_START_SECONDS}"),
        ("of it on the processor, s", f"{cpu:.2f}", ""),
    ]
    text = "| | | target |\n|---|---|---|\n" + "\n".join(f"| {name} | {value} | {aim} |" for name, value, aim in rows)
    print(text)
    facts = {"rows": [list(row) for row in rows], "held_kib": held, "starts": starts}
    report.write(REPOSITORY / "benchmarks" / "results", "render", "Drawing an answer in the terminal", text, facts)


if __name__ == "__main__":
    main()
