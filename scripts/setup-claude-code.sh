#!/bin/sh
# Lets every Claude Code of this user speak to the server here; --undo takes it back. `pensieve setup claude-code`.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
if [ ! -x "$here/.venv/bin/python" ]; then
    sh "$here/scripts/setup" >&2
fi
# -P: nothing of the folder we are called in is imported.
exec "$here/.venv/bin/python" -P -m pensieve setup claude-code "$@"
