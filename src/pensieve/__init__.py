"""Pensieve runs language models on your own machine: a terminal chat, and a server coding agents can use offline."""

__version__ = "0.1.0"
