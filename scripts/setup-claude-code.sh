#!/bin/sh
# Lets every Claude Code of this user speak to the server here; --undo takes it back. `pensieve setup claude-code`.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
if [ ! -x "$here/.venv/bin/python" ]; then
    sh "$here/scripts/setup" >&2
fi
exec "$here/.venv/bin/python" -m pensieve setup claude-code "$@"
