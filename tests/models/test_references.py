"""How people name models of repositories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.errors import UsageError
from pensieve.models.catalog import CATALOG
from pensieve.models.manifest import is_safe_name
from pensieve.models.references import HubReference, all_parts, choose, local_names, parse_reference

REPO = HubReference("o/r")
FILES = ("m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-Q8_0.gguf", "mmproj-m-Q8_0.gguf", "big-F16-00001-of-00002.gguf")


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("o/r", HubReference("o/r")),
        ("hf:o/r", HubReference("o/r")),
        ("o/r:Q4_K_M", HubReference("o/r", tag="Q4_K_M")),
        ("hf:o/r/m.gguf", HubReference("o/r", path="m.gguf")),
        ("o/r/sub dir/m.GGUF", HubReference("o/r", path="sub dir/m.GGUF")),
    ],
)
def test_references_are_read(text: str, reference: HubReference) -> None:
    """A repository alone, with a quantization, or with a file."""
    assert parse_reference(text) == reference


@pytest.mark.parametrize("text", ["name", "", "/o/r", "../r", "o/../r", "o r/x", "o/r\x1b", "hf:", "-o/r", "o/r:"])
def test_other_text_is_no_reference(text: str) -> None:
    """Names, paths and text with control characters are left to others."""
    assert parse_reference(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("o/r/model.pt", "pickle"),
        ("o/r/pytorch_model.bin", "pickle"),
        ("o/r/model.safetensors", "of single files only those can be pulled; owner/repo alone"),
        ("o/r/../x.gguf", "not the path of a file"),
        ("o/r//x.gguf", "not the path of a file"),
    ],
)
def test_files_that_cannot_be_pulled_are_refused(text: str, words: str) -> None:
    """Pickles can run code; other formats come later; paths stay in the repository."""
    with pytest.raises(UsageError, match=words):
        parse_reference(text)


def test_a_quantization_is_matched_as_a_whole_word() -> None:
    """Q4_K_S is not Q4_K, capitals do not matter, and projectors are no models."""
    assert choose(HubReference("o/r", tag="q4_k_s"), FILES) == ("m-Q4_K_S.gguf",)
    assert choose(HubReference("o/r", tag="Q8_0"), FILES) == ("m-Q8_0.gguf",)
    with pytest.raises(UsageError, match="no single file of it is Q4_K; name one of o/r/big"):
        choose(HubReference("o/r", tag="Q4_K"), FILES)


def test_a_repository_alone_means_its_only_or_its_middle_model() -> None:
    """One model needs no choice; of several, Q4_K_M is taken; else the choice is the person's."""
    assert choose(REPO, ["only-Q2_K.gguf"]) == ("only-Q2_K.gguf",)
    assert choose(REPO, FILES) == ("m-Q4_K_M.gguf",)
    with pytest.raises(UsageError, match=r"several models; name one of o/r/a\.gguf, o/r/b\.gguf"):
        choose(REPO, ["a.gguf", "b.gguf"])
    with pytest.raises(UsageError, match="holds neither GGUF nor model"):
        choose(REPO, [])


def test_a_split_model_is_all_its_parts() -> None:
    """One model in two files is one choice, and any part names all."""
    parts = ("d/F16-00001-of-00002.gguf", "d/F16-00002-of-00002.gguf")
    assert choose(HubReference("o/r", tag="F16"), parts) == parts
    assert all_parts(parts[1]) == parts
    with pytest.raises(UsageError, match="99,999 parts"):
        all_parts("m-00001-of-99999.gguf")


def test_a_repository_cannot_take_a_catalog_name() -> None:
    """A file named like the starter model is kept under its owner's name."""
    assert local_names(REPO, ("starter.gguf",), CATALOG)[0] == "o-starter"


@given(st.lists(st.text(min_size=1, max_size=300).filter(lambda text: "/" not in text), min_size=1, max_size=3))
def test_local_names_are_always_safe(stems: list[str]) -> None:
    """Whatever a repository calls its files, names stay in their folder."""
    name, files = local_names(REPO, tuple(f"{stem}.gguf" for stem in stems), CATALOG)
    assert all(map(is_safe_name, (name, *files)))
    assert len(set(files)) == len(stems)
