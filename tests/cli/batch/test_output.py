"""The file of answers: gone on with, never mixed up, in order at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from pensieve.cli.batch.output import Output
from pensieve.errors import UsageError


def line(number: int, kind: str = "succeeded", digest: str = "d") -> bytes:
    """One line of an output."""
    return b'{"line":%d,"custom_id":"x","result":{"type":"%s"},"digest":"%s"}\n' % (
        number,
        kind.encode(),
        digest.encode(),
    )


def test_what_is_done_is_known_again(tmp_path: Path) -> None:
    """And a line that was torn when the program died is cut off and done anew."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(line(1) + line(2)[:20])
    with Output(path) as output:
        assert (output.has(1, "d"), output.has(2, "d"), output.num_lines) == (True, False, 1)
        output.add(line(2))
    assert path.read_bytes() == line(1) + line(2)


def test_lines_come_into_the_order_of_the_input(tmp_path: Path) -> None:
    """With nothing lost, and the file can be added to afterwards."""
    path = tmp_path / "out.jsonl"
    with Output(path) as output:
        for number in (3, 1, 10, 2):
            output.add(line(number))
        output.sort()
        output.add(line(11))
    assert path.read_bytes() == b"".join(line(number) for number in (1, 2, 3, 10, 11))
    assert [found.name for found in tmp_path.iterdir()] == ["out.jsonl"]


def test_errors_are_forgotten_when_asked_again(tmp_path: Path) -> None:
    """The rest stays."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(line(1) + line(2, "errored") + line(3))
    with Output(path) as output:
        assert output.num_errors == 1
        output.forget_errors()
        assert (output.num_errors, output.has(2, "d"), output.num_lines) == (0, False, 2)


def test_an_output_of_another_input_is_refused(tmp_path: Path) -> None:
    """So is a file that is something else, and one that another run writes."""
    path, note = tmp_path / "out.jsonl", tmp_path / "note.txt"
    path.write_bytes(line(1, digest="then"))
    note.write_text("dear diary\n")
    with Output(path) as output:
        with pytest.raises(UsageError, match="line 1 has changed since"):
            output.has(1, "now")
        with pytest.raises(UsageError, match="another `pensieve batch`"):
            Output(path)
    with pytest.raises(UsageError, match="not an output"):
        Output(note)
    assert note.read_text() == "dear diary\n"
