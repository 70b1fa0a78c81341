#!/usr/bin/env python3
"""Check that this machine can run Pensieve: a thin call of `pensieve doctor`, with its options and exit status."""

from __future__ import annotations

import sys

from pensieve.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["doctor", *sys.argv[1:]]))
