"""What becomes of a foreign exception at the engine's border. Knows no engine."""

from __future__ import annotations

import sys
import traceback

from pensieve.errors import BackendFailure, Overloaded, PensieveError


def converted(error: BaseException) -> PensieveError:
    """Our error for any error; the place of a foreign one goes to standard error.

    The message of a foreign exception may quote a prompt, so that only its kind and place are written.
    """
    if isinstance(error, PensieveError):
        return error
    place = "".join(traceback.format_tb(error.__traceback__))
    print(f"{type(error).__name__} at\n{place}", file=sys.stderr)
    if isinstance(error, MemoryError) or "allocat" in str(error):
        return Overloaded("there was not enough memory for this request", 10.0)
    return BackendFailure(f"the engine failed on this request ({type(error).__name__})")
