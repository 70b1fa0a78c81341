"""`pensieve serve`: answer over HTTP, with a model in a worker process of its own, or from a script.

Wires the server together; no engine is ever imported here.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from pensieve import __version__
from pensieve.cli.backend import Place, check_quantization
from pensieve.cli.context import load_settings
from pensieve.config.settings import Folders, LogSettings, Settings
from pensieve.inference.router import Router
from pensieve.inference.scripted import Script, ScriptedBackend, load_script
from pensieve.inference.worker.host import WorkerBackend
from pensieve.models.registry import Registry
from pensieve.server import run
from pensieve.server.log_thread import LogThread

DEMO = "demo"
"""Stands for the script that is built in."""


@click.command("serve")
@click.option("--host", help="Address to listen on; one beside loopback needs a key. [127.0.0.1]")
@click.option("--port", help="Port to listen on; 0 takes any free one. [7777]")
@click.option("--model", help="Model that answers: a name, or the path of a GGUF file or of a folder of safetensors.")
@click.option("--context-tokens", help="Context the model is loaded with.")
@click.option("--quantization", help="Load an unquantized MLX model as int4, int8 or fp16; none leaves it as it is.")
@click.option("--weights", help="Hold an MLX model's weights as quantized, dual or dense; auto chooses by machine.")
@click.option(
    "--api-key",
    help="Key that clients must send. Other users of this machine can read a command line: prefer PENSIEVE_API_KEY.",
)
@click.option("--until-unused", is_flag=True, help="Stop by itself when the last terminal with an agent has left.")
@click.option("--script", metavar="FILE", help="Play a script (TOML or JSON, or the word demo) instead of a model.")
def serve(
    host: str | None,
    port: str | None,
    model: str | None,
    context_tokens: str | None,
    quantization: str | None,
    weights: str | None,
    api_key: str | None,
    script: str | None,
    *,
    until_unused: bool,
) -> None:
    """Answer the Anthropic Messages API over HTTP, for coding agents and other clients."""
    flags = {
        "server.host": host,
        "server.port": port,
        "server.api_key": api_key,
        "model.name": model,
        "model.context_tokens": context_tokens,
        "mlx.quantization": quantization,
        "mlx.weights": weights,
    }
    loaded = load_settings(flags)
    _log_to_stderr(loaded.settings.log)
    if script is not None:
        router = _scripted_router(script)
    else:
        router = _model_router(loaded.settings, loaded.folders, quantization)
    run.serve(
        router,
        loaded.settings.server,
        loaded.folders,
        version=__version__,
        announce=click.echo,
        until_unused=until_unused,
    )


def _log_to_stderr(settings: LogSettings) -> None:
    lines = LogThread(sys.stderr.fileno())
    logging.basicConfig(handlers=[lines], level=settings.level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    # Our own lines say what happens; of the libraries' words only complaints matter.
    for library in ("uvicorn", "httpx", "asyncio"):
        logging.getLogger(library).setLevel(logging.WARNING)


def _scripted_router(name: str) -> Router:
    script = Script.example() if name == DEMO else load_script(Path(name))
    return Router(script.spec, lambda _spec: ScriptedBackend(script))


def _model_router(settings: Settings, folders: Folders, quantization: str | None) -> Router:
    registry = Registry(folders.models)
    spec = registry.find(settings.model.name)
    check_quantization(quantization, Place(spec.name, spec=spec))
    return Router(spec, lambda spec: WorkerBackend(spec, settings, folders.state), registry, settings)
