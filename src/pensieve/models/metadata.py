"""What a model file says of itself: the keys of a GGUF header, read as facts. Plain Python; imports no engine.

A file that is broken, cut short or missing its other parts is `LoadFailed`, with the next step in the sentence.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from pensieve.errors import LoadFailed
from pensieve.models.gguf import Container, open_container
from pensieve.models.spec import Capability, ModelSpec, Origin
from pensieve.models.templates import capabilities_of

SPLIT_NAME: Final = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf", re.ASCII)
MAX_LAYERS: Final = 10_000
MAX_WIDTH: Final = 2**20
CACHE_ELEMENT_BYTES: Final = 2
CONTROL_TOKEN: Final = 3
OWN_TOKEN: Final = 4
"""Types of tokens that are no part of ordinary text: the format's own, and those its maker added."""

QUANTIZATIONS: Final = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
}
"""Names of `general.file_type`, as people write them in file names."""

_BPE_WITH_BOS: Final = frozenset(
    {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "lfm2", "tekken"}
)
"""Pre-tokenizers of byte-pair vocabularies that llama.cpp opens with a BOS token where the header does not say."""


class GgufHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a GGUF model. Numbers are 0 and texts empty where the header does not say."""

    path: Path
    written_seconds: int
    """When the (first) file was last written, in Unix time."""
    size_bytes: int
    """Of all parts."""
    weight_bytes: int
    architecture: str
    context_tokens: int
    quantization: str
    parameters: int
    cache_bytes_per_token: int
    chat_template: str
    bos_token: str
    eos_token: str
    adds_bos: bool
    adds_eos: bool

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """What the chat template can express."""
        return capabilities_of(self.chat_template)

    def spec(self, name: str, *, origin: Origin = "local") -> ModelSpec:
        """The model under that name."""
        return ModelSpec(
            name=name,
            location=str(self.path),
            origin=origin,
            architecture=self.architecture,
            context_tokens=self.context_tokens,
            quantization=self.quantization,
            parameters=self.parameters,
            weight_bytes=self.weight_bytes,
            cache_bytes_per_token=self.cache_bytes_per_token,
            capabilities=self.capabilities,
            created_seconds=self.written_seconds,
        )


def read_gguf(path: Path) -> GgufHeader:
    """The header of a GGUF file, or of the first of several parts; raises `LoadFailed`, and nothing else."""
    path = path.absolute()
    paths = split_parts(path)
    header = _read_one(path)
    for other in paths[1:]:
        part = _read_one(other)
        header = msgspec.structs.replace(
            header,
            size_bytes=header.size_bytes + part.size_bytes,
            weight_bytes=header.weight_bytes + part.weight_bytes,
            parameters=header.parameters + part.parameters,
        )
    return header


def read_markers(path: Path) -> dict[str, bool]:
    """Text of each token that stands for itself -> whether it is one of the control tokens; raises `LoadFailed`.

    Reads the whole vocabulary, which takes some milliseconds: for a model that is loaded, not for a list of models.
    """
    with open_container(path) as container:
        kinds = container.decimals("tokenizer.ggml.token_type")
        texts = container.texts("tokenizer.ggml.tokens")
    return {
        text: kind == CONTROL_TOKEN
        for text, kind in zip(texts, kinds, strict=False)
        if kind in (CONTROL_TOKEN, OWN_TOKEN) and text
    }


def read_special_tokens(path: Path) -> dict[int, str]:
    """Ids and texts of the tokens that `read_markers` tells; raises `LoadFailed`."""
    with open_container(path) as container:
        kinds = container.decimals("tokenizer.ggml.token_type")
        texts = container.texts("tokenizer.ggml.tokens")
    marked = zip(texts, kinds, strict=False)
    return {token: text for token, (text, kind) in enumerate(marked) if kind in (CONTROL_TOKEN, OWN_TOKEN) and text}


def split_parts(path: Path) -> tuple[Path, ...]:
    """All files of the model whose first file is `path`; raises `LoadFailed` if some are missing."""
    match = SPLIT_NAME.fullmatch(path.name)
    if match is None or int(match["parts"]) < 2:  # one part of one is a whole file
        return (path,)
    names = part_names(path.name)
    if path.name != names[0]:
        raise LoadFailed(
            f"this is part {int(match['part'])} of a model in {len(names)} files: name the first", path.name
        )
    missing = [name for name in names if not path.with_name(name).is_file()]
    if missing:
        problem = f"it comes in {len(names)} files, and {len(missing)} are missing beside it, first {missing[0]}"
        raise LoadFailed(f"{problem}: fetch them into the same folder", path.name)
    return tuple(path.with_name(name) for name in names)


def part_names(name: str) -> tuple[str, ...]:
    """The names of all files of the model that the file `name` belongs to."""
    match = SPLIT_NAME.fullmatch(name)
    if match is None:
        return (name,)
    parts = int(match["parts"])
    return tuple(f"{match['stem']}-{part:05}-of-{parts:05}.gguf" for part in range(1, parts + 1))


def _read_one(path: Path) -> GgufHeader:
    with open_container(path) as container:
        architecture = container.text("general.architecture")
        template = container.text("tokenizer.chat_template")
        bos, eos = _special_tokens(container)
        adds_bos, adds_eos = _added_tokens(container)
        return GgufHeader(
            path=path,
            written_seconds=max(0, int(path.stat().st_mtime)),
            size_bytes=container.size_bytes,
            weight_bytes=container.tensors.data_bytes,
            architecture=architecture,
            context_tokens=container.number(f"{architecture}.context_length") or 0,
            quantization=_quantization(container),
            parameters=container.tensors.parameters,
            cache_bytes_per_token=_cache_bytes_per_token(container, architecture),
            chat_template=template,
            bos_token=bos,
            eos_token=eos,
            adds_bos=adds_bos,
            adds_eos=adds_eos,
        )


def _quantization(container: Container) -> str:
    file_type = container.number("general.file_type")
    named = QUANTIZATIONS.get(file_type, "") if file_type is not None else ""
    return named or container.tensors.largest_type


def _special_tokens(container: Container) -> tuple[str, str]:
    """The texts of BOS and EOS; a SentencePiece vocabulary that does not say means 1 and 2."""
    is_sentencepiece = container.text("tokenizer.ggml.model") == "llama"
    texts: list[str] = []
    for name, usual in (("bos", 1), ("eos", 2)):
        token = container.number(f"tokenizer.ggml.{name}_token_id")
        if token is None and is_sentencepiece:
            token = usual
        texts.append("" if token is None else container.text_at("tokenizer.ggml.tokens", token))
    return texts[0], texts[1]


def _added_tokens(container: Container) -> tuple[bool, bool]:
    """Whether BOS and EOS are added to plain text: what the header says, else llama.cpp's defaults."""
    model, splitter = container.text("tokenizer.ggml.model"), container.text("tokenizer.ggml.pre")
    adds_bos = container.flag("tokenizer.ggml.add_bos_token")
    adds_eos = container.flag("tokenizer.ggml.add_eos_token")
    if adds_bos is None:
        adds_bos = model in {"llama", "bert"} or (model == "gpt2" and splitter in _BPE_WITH_BOS)
    if adds_eos is None:
        adds_eos = model == "t5"
    return adds_bos, adds_eos


def _cache_bytes_per_token(container: Container, architecture: str) -> int:
    """Keys and values of one token over all layers: sum over layers of key-value heads * (key + value width)."""

    def number(key: str) -> int:
        value = container.number(f"{architecture}.{key}") or 0
        return value if 0 < value <= MAX_WIDTH else 0

    layers = min(number("block_count"), MAX_LAYERS)
    heads = _per_layer(container, f"{architecture}.attention.head_count", layers)
    cache_heads = _per_layer(container, f"{architecture}.attention.head_count_kv", layers) or heads
    usual_width = number("embedding_length") // max(heads) if any(heads) else 0
    key_width = number("attention.key_length") or usual_width
    value_width = number("attention.value_length") or usual_width
    return sum(cache_heads) * (key_width + value_width) * CACHE_ELEMENT_BYTES


def _per_layer(container: Container, key: str, layers: int) -> tuple[int, ...]:
    """One number a layer: an array as it stands, a scalar repeated; empty if the key is absent or absurd."""
    numbers = container.numbers(key)
    if any(not 0 <= number <= MAX_WIDTH for number in numbers):
        return ()
    return numbers * layers if len(numbers) == 1 else numbers[:layers]
