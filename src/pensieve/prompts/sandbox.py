"""Jinja for templates that nobody vouches for: nothing can be changed, and calls and repetition have bounds.

A loop without calls is not stopped here. Knows no message and no preset.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

RENDER_SECONDS = 10.0
"""Longest a template may run: a million-token conversation renders in well under one."""

MAX_REPEAT = 1_000_000
"""Largest result of a template's `*` on strings and lists; none has a use for more."""

FOREIGN = (
    *(jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError),
    *(RecursionError, MemoryError),
)
"""What a template's own expressions can raise."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with a deadline on calls and a bound on repetition."""

    intercepted_binops = frozenset({"*", "**"})
    seconds = RENDER_SECONDS
    deadline = 0.0

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """See Jinja; refused after the deadline."""
        if time.monotonic() > self.deadline:
            raise jinja2.exceptions.SecurityError(f"it ran for more than {self.seconds:g} s")
        return super().call(*args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """See Jinja; refused where the result would be too large."""
        if operator == "**":
            raise jinja2.exceptions.SecurityError("templates may not use **")
        sized = left if isinstance(left, str | bytes | Sequence) else right
        if isinstance(sized, str | bytes | Sequence):
            times = right if sized is left else left
            if len(sized) * int(times) > MAX_REPEAT:
                raise jinja2.exceptions.SecurityError("the template repeats a text too often")
        return super().call_binop(context, operator, left, right)
