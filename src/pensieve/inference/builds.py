"""What the installed engines were built for, told from their files; imports neither of them."""

from __future__ import annotations

import asyncio
import functools
import mmap
from importlib import metadata, util
from pathlib import Path

from pensieve.devices.cuda import read_devices

MLX_CUDA_PACKAGES = ("mlx-cuda-13", "mlx-cuda-12")
CUDA_LIBRARIES = (b"libcuda.so", b"libcudart.so", b"libcublas.so")
"""A program that computes on NVIDIA cards names one of them, for the system to load."""


@functools.cache
def mlx_has_cuda() -> bool:
    """Whether MLX was installed for NVIDIA cards."""
    for package in MLX_CUDA_PACKAGES:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        return True
    return False


@functools.cache
def llamacpp_has_cuda() -> bool:
    """Whether llama.cpp was built for NVIDIA cards; the build on the package index was not."""
    found = util.find_spec("xllamacpp")
    folders = [] if found is None else found.submodule_search_locations or []
    return any(names_cuda(library) for folder in folders for library in Path(folder).glob("*.so"))


async def learn_builds() -> None:
    """Have the files looked at, once and in a thread, since reading blocks."""
    if not _learn.cache_info().currsize:
        await asyncio.to_thread(_learn)


@functools.cache
def _learn() -> None:
    if read_devices():  # nobody asks where there are no cards
        mlx_has_cuda()
        llamacpp_has_cuda()


def names_cuda(library: Path) -> bool:
    """Whether the file, which may be a hundred megabytes long, names a library of CUDA."""
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(name) >= 0 for name in CUDA_LIBRARIES)
