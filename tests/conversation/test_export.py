"""Exports for people: complete, and harmless to whoever opens them."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.conversation.export import FORMS, Form, export, markdown, plain_text
from pensieve.conversation.importing import read_conversations
from pensieve.messages import say

from .talks import rich_talk, talk, turn

OURS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "section", "time", "div", "pre", "code"} | {
    "details", "summary", "p", "em", "img"
}  # fmt: skip


class Tags(HTMLParser):
    """Which tags a page has, and the text outside of its style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See the base class."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        """See the base class."""
        self.text += data


def test_a_page_runs_nothing_and_loads_nothing() -> None:
    """Hostile titles, names, words and arguments are text on it; images are in it."""
    page = Tags(export(rich_talk(), "html").decode())
    assert page.tags <= OURS
    assert "onerror" not in page.attributes
    assert page.text.count("<script>alert(1)</script>") >= 10
    assert b"default-src 'none'" in export(rich_talk(), "html")
    assert b'src="data:image/png;base64,iVBORw0K"' in export(rich_talk(), "html")


@given(st.text(alphabet="<>&\"'`~\n abc!-/=\\", max_size=80))
def test_whatever_is_said_is_the_pages_text(said: str) -> None:
    """No character of it is markup."""
    page = Tags(export(talk(turn(1, None, say("user", said), say("assistant", said))), "html").decode())
    assert page.tags <= OURS
    code = re.sub(r"\s", "", said)
    assert "`" in said or code in re.sub(r"\s", "", page.text)


@pytest.mark.parametrize("form", FORMS)
def test_no_export_carries_what_moves_a_terminal(form: Form) -> None:
    """Neither escapes nor overrides of direction; JSON has them as escapes, because it gives back what was said."""
    data = export(rich_talk(), form)
    assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", data)
    if form != "json":
        assert "\u202e" not in data.decode()


def test_markdown_reads_as_it_was_said() -> None:
    """Code stays as it is; outside of it tags are shown; the branch that is not spoken is not in it."""
    said = markdown(rich_talk())
    assert said.startswith("# A walk &lt;script>alert(1)&lt;/script> [31mred back\n\n> System: Be kind. &lt;script>")
    assert "```python\nif a <b: go('<script>alert(1)</script>')\n```" in said
    assert "and `x <y`. &lt;script>" in said
    assert "## tiny&lt;script>alert(1)&lt;/script>\n" in said
    assert "> Hm &lt;script>" in said
    assert "(interrupted)\n\nHome" in said
    assert "By boat." not in said


@pytest.mark.parametrize(
    "said",
    [
        "\\\\`<script>` x` <script> `",
        "\\`<script>\\`",
        "`a\nb` <script> `c`",
        "- x\n\n  ```\n  a\n<script>\n",
        "  ```\ncode\n```\n<script>\n```",
        "~~~\n```\n~~~\n<script>\n```",
        "> ```\n<script>",
        "``a ` <script>",
        "``` a ` b\n<script>\n```",
        "```\ncode\n```\n<script>",
    ],
)
def test_what_only_looks_like_code_is_no_hiding_place(said: str) -> None:
    """Where a reader of Markdown would see a tag, there is none."""
    assert "<script" not in markdown(talk(turn(1, None, say("assistant", said))))


def test_plain_text_has_every_word_of_the_path() -> None:
    """With who said it, and what cannot be shown named."""
    said = plain_text(rich_talk())
    for words in ("You:\n", "Where to?", "[image, image/png, 6 bytes]", "[calls look", "[result: Fog.", "Home"):
        assert words in said
    assert "document map<script>alert(1)</script>.txt, text/plain, 5 bytes" in said


def test_json_can_be_imported_again() -> None:
    """It holds all branches."""
    assert read_conversations(export(rich_talk(), "json"), "it.json") == (rich_talk(),)


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_conversation_has_a_file_too(form: Form) -> None:
    """With words in the place of its title."""
    data = export(talk(title=""), form)
    assert form == "json" or b"A conversation" in data
