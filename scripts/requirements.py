"""Print what pip is to install: the project's direct requirements and chosen extras, or one package as it is locked.

pip refuses to install a folder while it checks hashes, so set-up asks for the requirements by name instead.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def requirements(pyproject: str, extras: list[str]) -> list[str]:
    """The requirements of the project with these extras, and of its build."""
    document = tomllib.loads(pyproject)
    project = document["project"]
    optional = project["optional-dependencies"]
    return [
        *document["build-system"]["requires"],
        *project["dependencies"],
        *(requirement for extra in extras for requirement in optional[extra]),
    ]


def locked(constraints: str, package: str) -> str:
    """The package's version and hashes as `constraints.txt` has them."""
    entries = constraints.replace("\\\n", "").splitlines()
    return next(entry for entry in entries if entry.startswith(f"{package}=="))


def main() -> None:
    """Print the lines asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="*", help="extras of the project: dev, mlx-cpu, mlx-cuda")
    parser.add_argument("--locked", metavar="PACKAGE", help="print this package's locked version instead")
    options = parser.parse_args()
    if options.locked:
        print(locked((REPOSITORY / "constraints.txt").read_text(encoding="utf-8"), options.locked))
    else:
        print(*requirements((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), options.extras), sep="\n")


if __name__ == "__main__":
    main()
