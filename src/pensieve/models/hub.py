"""Files out of a Hugging Face repository, through `huggingface_hub`: the only file that imports it.

The library names addresses, sends the user's token and reads file facts; the bytes are written here, because its own
download forgets what an interrupted try had fetched. A part is named for the exact content it belongs to, so that it
is never continued with another file's bytes. Knows no registry.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import msgspec
from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of the HTTP library this release uses
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]  # public, untyped

from pensieve import __version__
from pensieve.errors import DownloadFailed
from pensieve.models.manifest import WeightFile
from pensieve.models.progress import Progress
from pensieve.models.references import HubReference, folder_files
from pensieve.models.staging import checked, discard, disk_errors, require_space

constants.HF_HUB_DISABLE_TELEMETRY = True  # nobody is told what runs here

TIMEOUT_SECONDS: Final = 30.0
PAUSES_SECONDS: Final = (1.0, 2.0, 4.0, 8.0)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PARTIAL_CONTENT: Final = 206
_RANGE_REFUSED: Final = 416


class RemoteFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a repository at one moment: its address names the commit, so that it cannot change under us."""

    path: str
    url: str
    num_bytes: int
    """0 where the server does not say."""
    etag: str

    @property
    def sha256(self) -> str:
        """Its checksum, where the server's tag is one; else empty."""
        return self.etag if _SHA256.fullmatch(self.etag) else ""

    @property
    def part_name(self) -> str:
        """Name of the unfinished file; the tag is the server's, so it is hashed before it names anything."""
        return hashlib.sha256(f"{self.path}\0{self.etag}".encode()).hexdigest()[:32] + ".part"


class Listing(msgspec.Struct, frozen=True):
    """The files of a repository, by path, and the commit they are of."""

    commit: str
    paths: tuple[str, ...]


class Hub(msgspec.Struct, frozen=True):
    """A hub at an address (None: the library's own setting), and how long to wait between tries."""

    endpoint: str | None = None
    pauses_seconds: tuple[float, ...] = PAUSES_SECONDS

    def listing(self, repo: str, revision: str = "") -> Listing:
        """Every file in the repository."""
        with hub_errors(repo):
            api = HfApi(endpoint=self.endpoint, library_name="pensieve", library_version=__version__)
            facts = api.model_info(repo, revision=revision or None, timeout=TIMEOUT_SECONDS)
        names = (file.rfilename for file in facts.siblings or [])
        return Listing(facts.sha or revision, tuple(sorted(name for name in names if name.isprintable())))

    def describe(self, repo: str, path: str, revision: str = "") -> RemoteFile:
        """What the hub says of a file now."""
        with hub_errors(f"{repo}/{path}"):
            url = hf_hub_url(repo, path, revision=revision or None, endpoint=self.endpoint)
            facts = get_hf_file_metadata(url, headers=_headers(), timeout=TIMEOUT_SECONDS)
            if facts.commit_hash is None or facts.etag is None:
                raise DownloadFailed(f"{self.endpoint or 'the hub'} does not answer like a hub: check HF_ENDPOINT")
            pinned = hf_hub_url(repo, path, revision=facts.commit_hash, endpoint=self.endpoint)
        return RemoteFile(path=path, url=pinned, num_bytes=facts.size or 0, etag=facts.etag)

    def fetch(self, remote: RemoteFile, part: Path, progress: Progress) -> None:
        """Bring the file to `part`, going on from what is there; gives up after tries that brought nothing."""
        pauses = iter(self.pauses_seconds)
        while True:
            before_bytes = size_of(part)
            try:
                with disk_errors(part.parent, remote.num_bytes), hub_errors(remote.path):
                    return _stream(remote, part, progress)
            except _ConnectionLost as lost:
                if size_of(part) > before_bytes:
                    pauses = iter(self.pauses_seconds)
                if (pause := next(pauses, None)) is None:
                    raise DownloadFailed(f"{lost.problem}, then pull again: it goes on from here") from lost
                time.sleep(pause)


class HubModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a repository: its file, or all its parts in order, and the names they get here."""

    name: str
    repo: str
    paths: tuple[str, ...]
    file_names: tuple[str, ...]
    hub: Hub
    revision: str = ""

    @property
    def text(self) -> str:
        """The source, as the manifest records it and `pull` takes it."""
        return f"{HubReference(self.repo, revision=self.revision).folder_source}/{self.paths[0]}"

    def fetch(self, staging: Path, progress: Progress) -> tuple[WeightFile, ...]:
        """Bring every file into `staging`; what arrived stays there when a try fails, to be gone on from."""
        remotes = [self.hub.describe(self.repo, path, self.revision) for path in self.paths]
        parts = [staging / remote.part_name for remote in remotes]
        total_bytes = sum(remote.num_bytes for remote in remotes)
        with disk_errors(staging, total_bytes):
            _drop_strangers(staging, parts)
            require_space(staging, total_bytes - sum(map(size_of, parts)))
            arrived = self._fetch_all(remotes, parts, progress)
            for part, name in zip(parts, self.file_names, strict=True):
                part.rename(staging / name)
        return tuple(
            msgspec.structs.replace(file, name=name) for file, name in zip(arrived, self.file_names, strict=True)
        )

    def _fetch_all(self, remotes: list[RemoteFile], parts: list[Path], progress: Progress) -> list[WeightFile]:
        """Every file fetched, then every file checked; progress counts the bytes of all."""
        total_bytes = sum(remote.num_bytes for remote in remotes)
        starts = list(accumulate((remote.num_bytes for remote in remotes), initial=0))
        for remote, part, start in zip(remotes, parts, starts, strict=False):
            self.hub.fetch(remote, part, _within(progress, start, total_bytes))
        return [
            checked(part, _within(progress, start, total_bytes), sha256=remote.sha256)
            for remote, part, start in zip(remotes, parts, starts, strict=False)
        ]


class HubFolder(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is all of a repository: config.json, tokenizer and safetensors, as one commit has them."""

    name: str
    repo: str
    hub: Hub
    revision: str = ""

    @property
    def text(self) -> str:
        """The source, as the manifest records it and `pull` takes it."""
        return HubReference(self.repo, revision=self.revision).folder_source

    def fetch(self, staging: Path, progress: Progress) -> tuple[WeightFile, ...]:
        """See `HubModel.fetch`; what could not be loaded is refused before anything is fetched."""
        listing = self.hub.listing(self.repo, self.revision)
        names = folder_files(self.repo, listing.paths)
        files = HubModel(
            name=self.name, repo=self.repo, paths=names, file_names=names, hub=self.hub, revision=listing.commit
        )
        return files.fetch(staging, progress)


class _ConnectionLost(DownloadFailed):
    """The transfer broke off; trying again may go on."""


def _within(progress: Progress, start_bytes: int, total_bytes: int) -> Progress:
    """Progress of one file of several, told as that of all."""

    def report(stage: str, done_bytes: int, _file_bytes: int, /) -> None:
        progress(stage, start_bytes + done_bytes, total_bytes)

    return report


def size_of(path: Path) -> int:
    """Bytes of the file; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn the library's errors about `what` into ours."""
    try:
        yield
    except GatedRepoError as error:
        problem = f"{what} is behind terms of use: accept them on its page, then set HF_TOKEN"
        raise DownloadFailed(problem) from error
    except RepositoryNotFoundError as error:
        problem = f"the hub has no repository for {what}: check the name; a private one needs HF_TOKEN"
        raise DownloadFailed(problem) from error
    except RevisionNotFoundError as error:
        raise DownloadFailed(f"{what} has no such revision: check what follows the @") from error
    except EntryNotFoundError as error:
        raise DownloadFailed(f"the hub has no file {what}: check the name") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        kind = _ConnectionLost if status >= 500 or status == 429 else DownloadFailed
        raise kind(f"the hub refused {what} with HTTP status {status}: try later") from error
    except OfflineModeIsEnabled as error:
        raise DownloadFailed(f"{what} was not asked for, since HF_HUB_OFFLINE is set: unset it to pull") from error
    except HTTPError as error:
        problem = f"the connection for {what} failed ({str(error) or type(error).__name__}): check the network"
        raise _ConnectionLost(problem) from error


def _headers() -> dict[str, str]:
    return build_hf_headers(library_name="pensieve", library_version=__version__)


def _stream(remote: RemoteFile, part: Path, progress: Progress) -> None:
    done_bytes = size_of(part)
    if remote.num_bytes and done_bytes == remote.num_bytes:
        return
    headers = _headers() | {"Accept-Encoding": "identity"}
    if done_bytes:
        headers["Range"] = f"bytes={done_bytes}-"
    with get_session().stream(
        "GET", remote.url, headers=headers, timeout=TIMEOUT_SECONDS, follow_redirects=True
    ) as answer:
        if answer.status_code == _RANGE_REFUSED:
            part.unlink(missing_ok=True)
            raise _ConnectionLost(f"the hub could not go on with {remote.path}: check HF_ENDPOINT")
        hf_raise_for_status(answer)
        _write(answer, remote, part, progress)


def _write(answer: Any, remote: RemoteFile, part: Path, progress: Progress) -> None:
    """Append a partial answer where it belongs; write a whole one from the start."""
    is_partial = answer.status_code == _PARTIAL_CONTENT
    done_bytes = size_of(part) if is_partial else 0
    if is_partial and not answer.headers.get("Content-Range", "").startswith(f"bytes {done_bytes}-"):
        part.unlink(missing_ok=True)
        raise _ConnectionLost(f"the hub sent another range of {remote.path} than was asked for: check HF_ENDPOINT")
    with part.open("ab" if is_partial else "wb") as file:
        for chunk in answer.iter_raw():
            file.write(chunk)
            done_bytes += len(chunk)
            progress("downloading", done_bytes, remote.num_bytes)
            if done_bytes > remote.num_bytes > 0:
                break
    _check_size(remote, part, done_bytes)


def _check_size(remote: RemoteFile, part: Path, done_bytes: int) -> None:
    if done_bytes > remote.num_bytes > 0:
        part.unlink()
        raise DownloadFailed(f"the hub sent more of {remote.path} than the {remote.num_bytes:,} bytes it promised")
    if done_bytes < remote.num_bytes:
        raise _ConnectionLost(f"the transfer of {remote.path} ended at {done_bytes:,} bytes: check the network")


def _drop_strangers(staging: Path, parts: list[Path]) -> None:
    for child in staging.iterdir():
        if child not in parts:
            discard(child)
