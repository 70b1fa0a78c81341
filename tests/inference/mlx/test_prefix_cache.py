"""The books of the prefix cache: what matches, what goes first, and that they always balance."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.inference.mlx.prefix_cache import (
    BLOCK_TOKENS,
    Boundary,
    Entry,
    Extent,
    PrefixIndex,
    block_digests,
    root_digest,
)

Path = tuple[int, ...]
"""A prompt by the kinds of its blocks."""


def digests(path: Path) -> list[bytes]:
    """The digests of a prompt whose blocks each repeat one token."""
    tokens = [kind for kind in path for _ in range(BLOCK_TOKENS)]
    return list(block_digests(root_digest("model"), tokens, len(path)))


def index(*, budget_bytes: int = 10_000, is_trimmable: bool = True) -> PrefixIndex:
    """Short extents, and ten bytes a block in these tests."""
    return PrefixIndex(budget_bytes=budget_bytes, is_trimmable=is_trimmable, extent_blocks=3)


def keep(books: PrefixIndex, path: Path, *, boundary_bytes: int = 0) -> int | None:
    """Enter a prompt as the store does; how many blocks fit."""
    names = digests(path)
    match = books.match(names)
    books.touch(match)
    needs_boundary = boundary_bytes and not (match.num_blocks == len(path) and match.boundary)
    added = boundary_bytes if needs_boundary else 0
    count = books.fitting_blocks(match, len(names) - match.num_blocks, block_bytes=10, boundary_bytes=added)
    if count is None:
        return None
    needed = books.num_bytes + count * 10 + added - books.budget_bytes
    for entry in books.victims(needed):
        books.remove(entry)
    books.append(match, names[match.num_blocks : match.num_blocks + count], block_bytes=10)
    if needs_boundary:
        books.add_boundary(books.match(names), boundary_bytes)
    books.check()
    return count


def held(books: PrefixIndex, path: Path) -> int:
    """Blocks of a prompt that are stored."""
    return books.match(digests(path)).num_blocks


def test_a_digest_stands_for_all_tokens_before_it() -> None:
    """Equal blocks after different ones differ, as do equal prompts of different models."""
    assert digests((1, 2))[0] == digests((1, 3))[0]
    assert digests((1, 2))[1] != digests((3, 2))[1]
    tokens = list(range(BLOCK_TOKENS))
    assert list(block_digests(root_digest("a"), tokens, 1)) != list(block_digests(root_digest("b"), tokens, 1))
    assert all(len(digest) == 16 for digest in digests((1, 2)))


def test_prompts_share_their_first_blocks_wherever_they_part() -> None:
    """Inside an extent as at its end; nothing is entered twice."""
    books = index()
    keep(books, (1, 2, 3, 4, 5))
    assert keep(books, (1, 2, 9, 9)) == 2
    assert keep(books, (1, 2, 3, 8)) == 1
    assert books.num_bytes == 80
    assert held(books, (1, 2, 9, 9)) == 4
    assert [count for _, count in books.match(digests((1, 2, 9, 9))).parts()] == [2, 2]
    assert [count for _, count in books.match(digests((1, 2, 3, 4, 7))).parts()] == [3, 1]


def test_a_growing_conversation_fills_extents() -> None:
    """The last one grows until it is full, also where another prompt parted from it."""
    books = index()
    for length in range(1, 8):
        keep(books, tuple(range(length)))
    keep(books, (0, 1, 2, 3, 4, 5, 6, 7))
    keep(books, (0, 1, 2, 3, 4, 5, 6, 7, 8))
    assert sorted(len(entry.digests) for entry in books.entries() if isinstance(entry, Extent)) == [3, 3, 3]


def test_what_was_used_least_recently_goes_first_and_from_its_end() -> None:
    """A use counts for all that comes before; what others hang on stays."""
    books = index(budget_bytes=100)
    keep(books, (1, 1, 1, 1))
    keep(books, (2, 2, 2, 2))
    books.touch(books.match(digests((1, 1, 1, 1))))
    keep(books, (3, 3, 3))
    assert [held(books, (kind,) * 4) for kind in (1, 2, 3)] == [4, 3, 3]
    keep(books, (3, 3, 3, 3, 3))
    assert [held(books, (kind,) * 5) for kind in (1, 2, 3)] == [4, 0, 5]


def test_a_prompt_larger_than_the_budget_keeps_what_fits() -> None:
    """Its own beginning is not evicted for its end."""
    books = index(budget_bytes=55)
    assert keep(books, (1,) * 9) == 5
    assert keep(books, (1,) * 9) == 0
    assert held(books, (1,) * 9) == 5


def test_an_answer_starts_only_at_a_boundary_where_layers_cannot_be_cut() -> None:
    """The last boundary within what matches; boundaries may lie inside an extent."""
    books = index(is_trimmable=False)
    keep(books, (1, 2, 3, 4, 5), boundary_bytes=7)
    assert books.usable(books.match(digests((1, 2, 3, 4, 9)))).num_blocks == 0
    keep(books, (1, 2), boundary_bytes=7)
    usable = books.usable(books.match(digests((1, 2, 3, 4, 9))))
    assert usable.num_blocks == 2
    assert usable.boundary is not None
    assert books.usable(books.match(digests((1, 2, 3, 4, 5, 6)))).num_blocks == 5


def test_a_boundary_of_a_prompt_that_parted_before_it_is_not_taken() -> None:
    """It lies in a shared extent, as far from the beginning as the other prompt's own end."""
    books = index(is_trimmable=False)
    keep(books, (1, 2, 3), boundary_bytes=7)
    keep(books, (1, 2, 9), boundary_bytes=7)
    found = [books.usable(books.match(digests(path))) for path in ((1, 2, 3), (1, 2, 9))]
    assert [match.num_blocks for match in found] == [3, 3]
    assert found[0].boundary is not found[1].boundary
    books.remove(found[1].boundary or pytest.fail("no boundary"))
    assert books.usable(books.match(digests((1, 2, 9)))).num_blocks == 0


def test_a_prompt_that_needs_its_boundary_is_kept_whole_or_not_at_all() -> None:
    """Nothing is evicted for what could not be used."""
    books = index(budget_bytes=60, is_trimmable=False)
    keep(books, (1, 1, 1), boundary_bytes=7)
    assert keep(books, (2,) * 6, boundary_bytes=7) is None
    assert keep(books, (1,) * 6, boundary_bytes=7) is None
    assert held(books, (1,) * 6) == 3


def test_an_old_boundary_goes_before_the_blocks_it_stands_on() -> None:
    """A deeper one of the same conversation keeps the blocks in use."""
    books = index(budget_bytes=70, is_trimmable=False)
    keep(books, (1, 1), boundary_bytes=15)
    keep(books, (1, 1, 1, 1), boundary_bytes=15)
    keep(books, (1, 1, 1, 1, 1), boundary_bytes=15)
    assert [entry.end for entry in books.entries() if isinstance(entry, Boundary)] == [5]
    assert held(books, (1,) * 5) == 5


prompts = st.lists(st.integers(0, 1), min_size=1, max_size=9).map(tuple)


@given(st.lists(st.tuples(prompts, st.booleans()), max_size=25), st.integers(0, 200), st.booleans())
def test_the_books_balance_whatever_comes(
    steps: list[tuple[Path, bool]], budget_bytes: int, is_trimmable: bool
) -> None:
    """Prompts that share beginnings are kept, used and evicted; each keep is followed by a check."""
    books = index(budget_bytes=budget_bytes, is_trimmable=is_trimmable)
    for path, is_release in steps:
        if is_release:
            for entry in books.victims(25):
                books.remove(entry)
            books.check()
        fitting = keep(books, path, boundary_bytes=0 if is_trimmable else 17)
        usable = books.usable(books.match(digests(path)))
        assert fitting is None or is_trimmable or usable.num_blocks == len(path)
        books.touch(usable)
        books.check()
    for entry in books.victims(10**9):
        books.remove(entry)
    assert books.num_bytes == 0


def test_unbalanced_books_are_found() -> None:
    """Each kind of disorder by its sentence."""

    def broken(change: str) -> None:
        books = index(is_trimmable=False)
        keep(books, (1, 1, 1, 1), boundary_bytes=5)
        first, second = (entry for entry in reversed(list(books.entries())) if isinstance(entry, Extent))
        oldest: Entry = next(books.entries())
        match change:
            case "bytes":
                books.num_bytes += 1
            case "order":
                books._order.move_to_end(oldest)
            case "link":
                second.parent = None
            case "children":
                first.num_children += 1
            case "block":
                second.digests.append(b"")
            case "boundary":
                second.boundaries.clear()
        books.check()

    for change in ("bytes", "order", "link", "children", "block", "boundary"):
        with pytest.raises(AssertionError):
            broken(change)
    broken("nothing")


def test_the_index_takes_a_few_bytes_a_token() -> None:
    """No lists of tokens, no tree of them."""
    names = digests(tuple(index % 251 for index in range(1600)))
    tracemalloc.start()
    books = PrefixIndex(budget_bytes=10**9, is_trimmable=True)
    books.append(books.match(names), [bytes(bytearray(name)) for name in names], block_bytes=10)
    num_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_bytes / (1600 * BLOCK_TOKENS) < 4
