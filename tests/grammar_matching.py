"""Whether a text fits a constraint, asked of llguidance, as both engines use it; rules as expressions for `re`."""

from __future__ import annotations

import re

from pensieve.inference.constraints.constraint import (
    Characters,
    Choice,
    Constraint,
    Lexeme,
    Literal,
    Repeat,
    Rule,
    Sequence,
)
from pensieve.inference.constraints.following import Follower, byte_matchers
from pensieve.inference.constraints.lark import to_lark

MATCHERS = byte_matchers()


def is_accepted(constraint: Constraint, text: str) -> bool:
    """Whether it takes the whole text."""
    follower = Follower(MATCHERS.matcher(to_lark(constraint)))
    return follower.take(text) and follower.is_whole


def python_pattern(rule: Rule) -> str:
    """A rule without references, as an expression for `re`."""
    match rule:
        case Literal(text):
            return re.escape(text)
        case Characters(ranges):
            return "[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges) + "]"
        case Sequence(items):
            return f"(?:{''.join(map(python_pattern, items))})"
        case Choice(options):
            return f"(?:{'|'.join(map(python_pattern, options))})" if options else r"(?!)"
        case Repeat(item, _, at_least, at_most):
            return f"(?:{python_pattern(item)}){{{at_least},{'' if at_most is None else at_most}}}"
        case Lexeme(inner):
            return python_pattern(inner)
    raise AssertionError(f"no lexeme: {rule}")
