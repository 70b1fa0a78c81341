"""What was said is continued from the same tokens."""

from __future__ import annotations

from pensieve.inference.llamacpp.said import Said


def encode(text: str) -> list[int]:
    """A token a character, and one for the start, as some vocabularies have it."""
    return [0, *map(ord, text)]


def test_sampled_tokens_are_kept() -> None:
    """However the tokenizer would have cut their text."""
    said = Said()
    said.add("Hello", 500, 1)
    said.add(" you", 501, 1)
    assert said.tokens(encode) == [500, 501]
    assert (said.text, said.num_sampled) == ("Hello you", 2)


def test_a_character_of_several_tokens_is_encoded_as_so_many() -> None:
    """Without the space that begins a text."""
    said = Said()
    said.add("ab", ord("b"), 2)
    assert said.tokens(encode) == [ord("a"), ord("b")]
    assert said.known_tokens() == []


def test_what_is_put_counts_as_held_and_not_as_said() -> None:
    """It was not sampled."""
    said = Said()
    said.add("a", 7, 1)
    said.put("</t>")
    assert said.tokens(encode)[:1] == [7]
    assert (said.num_sampled, said.num_added) == (1, 4)


def test_cutting_takes_tokens_back() -> None:
    """Those in the middle of which is cut are encoded anew."""
    said = Said()
    said.add("ab", 7, 1)
    said.add("cd", 8, 1)
    said.add("ef", 9, 1)
    said.cut(3)
    assert said.text == "abc"
    assert said.tokens(lambda text: [ord(text[0])]) == [7, ord("c")]
    assert said.num_sampled == 2
