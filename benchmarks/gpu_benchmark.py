"""Our server next to mlx-lm's in one run: prompts and answers, one stream and many, on random weights of real shapes.

Both load the same folder, answer the same prompts greedily, and take turns. Each prompt is new, so that no cache of
prompts helps either side. Results are written after each round, so that a run that is cut off still tells.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import machine
import report
import rivals
from random_models import LABEL, SHAPES, prompt

OURS, THEIRS = "pensieve", "mlx_lm.server"
SHARE_MIB = 2048
"""Either side's budget for prompts it has read: both share one GPU, and no prompt comes twice."""
SPARE_BYTES = 12 * 2**30
"""Buffers that the other side may keep for its next arrays; ours bounds its own."""


class Scenario(NamedTuple):
    """What is asked at once, what of it is measured, and how much faster we want to be."""

    name: str
    num_streams: int
    prompt_tokens: int
    output_tokens: int
    kind: str
    target: float


SCENARIOS = (
    Scenario("decode, 1 stream", 1, 512, 128, "decode", 0.97),
    Scenario("prefill, 512", 1, 512, 2, "prefill", 1.5),
    Scenario("prefill, 4,096", 1, 4096, 2, "prefill", 2.3),
    Scenario("prefill, 16,384", 1, 16384, 2, "prefill", 2.3),
    Scenario("total, 4 streams", 4, 512, 128, "total", 0.97),
    Scenario("total, 16 streams", 16, 512, 128, "total", 2.5),
    Scenario("total, 32 streams", 32, 512, 128, "total", 0.97),
)
TINY = (
    Scenario("decode, 1 stream", 1, 32, 16, "decode", 0.0),
    Scenario("prefill, 512", 1, 512, 2, "prefill", 0.0),
    Scenario("total, 4 streams", 4, 32, 16, "total", 0.0),
)


class Sample(NamedTuple):
    """One turn of one server at one scenario."""

    scenario: str
    server: str
    round_number: int
    tokens_per_second: float
    prompt_tokens: int
    output_tokens: int
    first_seconds: float


def measure(server: rivals.Server, scenario: Scenario, round_number: int) -> Sample:
    """One turn; raises `RuntimeError` if the server did other work than was asked for."""
    seeds = (f"{scenario.name} {round_number} {stream}" for stream in range(scenario.num_streams))
    prompts = [prompt(scenario.prompt_tokens, seed) for seed in seeds]
    answers = server.ask_together(prompts, scenario.output_tokens)
    for answer in answers:
        if (answer.prompt_tokens, answer.output_tokens) != (scenario.prompt_tokens, scenario.output_tokens):
            raise RuntimeError(
                f"{server.name} at {scenario.name}: {answer.prompt_tokens}+{answer.output_tokens} tokens"
            )
    first_seconds = report.median([answer.first_seconds for answer in answers])
    num_output = sum(answer.output_tokens for answer in answers)
    if scenario.kind == "decode":
        speed = answers[0].tokens_per_second
    elif scenario.kind == "prefill":
        speed = scenario.prompt_tokens / first_seconds
    else:
        speed = num_output / (
            max(answer.arrivals[-1] for answer in answers) - min(answer.sent_at for answer in answers)
        )
    return Sample(scenario.name, server.name, round_number, speed, answers[0].prompt_tokens, num_output, first_seconds)


def turns(scenarios: tuple[Scenario, ...], servers: list[rivals.Server], num_rounds: int) -> Iterator[list[Sample]]:
    """Rounds of all scenarios; who begins alternates. The first round warms up, and is given as round 0."""
    for round_number in range(num_rounds + 1):
        samples = []
        for place, scenario in enumerate(scenarios):
            order = servers if (round_number + place) % 2 else servers[::-1]
            samples += [measure(server, scenario, round_number) for server in order]
        yield samples


def rows(samples: list[Sample], scenarios: tuple[Scenario, ...], roofline: Roofline) -> list[report.Row]:
    """Medians of both sides; the warm-up is left out."""
    result = []
    for scenario in scenarios:
        sides = {
            name: [
                sample.tokens_per_second
                for sample in samples
                if (sample.scenario, sample.server) == (scenario.name, name) and sample.round_number
            ]
            for name in (OURS, THEIRS)
        }
        ours, theirs = (report.median(sides[name]) for name in (OURS, THEIRS))
        limit = roofline.tokens_per_second(scenario)
        result.append(report.Row(scenario.name, "tokens/s", ours, theirs, len(sides[OURS]), scenario.target, limit))
    return result


class Roofline(NamedTuple):
    """What the machine could do at most: weights and caches read once a step, each weight multiplied once a token."""

    copy_bytes_per_second: float
    flops_per_second: float
    weight_bytes: float
    active_parameters: float
    cache_bytes_per_token: float

    def tokens_per_second(self, scenario: Scenario) -> float:
        """Of decoding by memory, of a prompt by arithmetic, of both together for a batch."""
        prefill_seconds = scenario.prompt_tokens * 2 * self.active_parameters / self.flops_per_second
        if scenario.kind == "prefill":
            return scenario.prompt_tokens / prefill_seconds
        context_bytes = (scenario.prompt_tokens + scenario.output_tokens / 2) * self.cache_bytes_per_token
        step_bytes = self.weight_bytes + scenario.num_streams * context_bytes
        step_seconds = step_bytes / self.copy_bytes_per_second
        if scenario.kind == "decode":
            return 1 / step_seconds
        seconds = scenario.num_streams * prefill_seconds + scenario.output_tokens * step_seconds
        return scenario.num_streams * scenario.output_tokens / seconds


def roofline_of(shape: str, folder: Path, facts: dict[str, Any]) -> Roofline:
    """From the files' sizes and the config; a mixture's idle experts are not read, nor multiplied."""
    config = SHAPES[shape]
    stored_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    embedding_bytes = config["vocab_size"] * config["hidden_size"] * 4.5 / 8
    experts = config.get("num_local_experts", 0)
    expert_parameters = 3 * config["hidden_size"] * config["intermediate_size"]
    layers = config["num_hidden_layers"]
    heads = config["num_key_value_heads"]
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    idle = layers * (experts - config.get("num_experts_per_tok", 0)) * expert_parameters * 4.25 / 8
    read_bytes = stored_bytes - embedding_bytes - idle
    return Roofline(
        facts["copy_bytes_per_second"],
        facts["matrix_flops_per_second"],
        read_bytes,
        read_bytes * 8 / 4.5,
        2 * 2 * layers * heads * width,
    )


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, help="default: phi-3-mini on a GPU, tiny-phi-3 on a CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=540.0, help="start no round that would end later")
    parser.add_argument("--folder", type=Path, help="where the model is made, or is already")
    parser.add_argument("--out", type=Path, default=Path(".cache/benchmarks"))
    parser.add_argument("--without", nargs="*", default=[], help="leave out scenarios whose name holds one of these")
    parser.add_argument("--weights", default="auto", help="our weight policy: auto, quantized, dual, dense")
    return parser.parse_args()


def main() -> None:
    """Make the model, start both servers, take turns, print and write."""
    began = time.perf_counter()
    arguments = parsed()
    facts = machine.measured()
    shape = arguments.shape or ("phi-3-mini" if facts["kind"] == "gpu" else "tiny-phi-3")
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        home = Path(temporary)
        model = rivals.made_model(shape, arguments.folder or home / shape)
        print(f"{shape} ({LABEL}) made, machine measured, {time.perf_counter() - began:.0f} s: {facts}", flush=True)
        stack.callback(keep_logs, home, arguments.out)
        environment = {
            "PENSIEVE_MLX_WEIGHTS": arguments.weights,
            "PENSIEVE_MLX_PREFIX_CACHE_MIB": str(SHARE_MIB),
            "PENSIEVE_LOG_LEVEL": "debug",
        }
        servers = [
            stack.enter_context(rivals.pensieve(model, home / "ours", name=OURS, **environment)),
            stack.enter_context(
                rivals.mlx_lm(
                    *(model, home / "theirs", "--prompt-cache-bytes", str(SHARE_MIB * 2**20)),
                    spare_bytes=SPARE_BYTES,
                )
            ),
        ]
        first = {server.name: server.ask(prompt(16, 1), 2).first_seconds for server in servers}
        print(f"first answers (ours with its load), {time.perf_counter() - began:.0f} s: {first}", flush=True)
        known = {"shape": shape, "label": LABEL, "machine": facts, "first_answer_seconds": first}
        known_scenarios = TINY if shape.startswith("tiny") else SCENARIOS
        scenarios = tuple(one for one in known_scenarios if not any(part in one.name for part in arguments.without))
        compare(arguments, scenarios, servers, roofline_of(shape, model, facts), known, began)


def keep_logs(home: Path, out: Path) -> None:
    """Copy both servers' logs beside the results."""
    out.mkdir(parents=True, exist_ok=True)
    for log in home.rglob("*.log"):
        shutil.copy(log, out / log.name)


def compare(
    arguments: argparse.Namespace,
    scenarios: tuple[Scenario, ...],
    servers: list[rivals.Server],
    roofline: Roofline,
    known: dict[str, Any],
    began: float,
) -> None:
    """Take turns while there is time, and write what is known after each round."""
    samples: list[Sample] = []
    name = f"gpu-{known['shape']}"
    title = f"{known['shape']} shape, {LABEL}: {OURS} next to {THEIRS}"
    round_began = time.perf_counter()
    for fresh in turns(scenarios, servers, arguments.rounds):
        samples += fresh
        result = rows(samples, scenarios, roofline)
        text = report.table(result, OURS, THEIRS)
        report.write(
            arguments.out,
            name,
            title,
            text,
            known | {"rows": [row._asdict() for row in result], "samples": [sample._asdict() for sample in samples]},
        )
        now = time.perf_counter()
        print(
            f"\nround {fresh[0].round_number} done, {now - began:.0f} s"
            + ("" if fresh[0].round_number else " (warm-up)")
        )
        print(text, flush=True)
        if now - began + (now - round_began) > arguments.seconds:
            print("no time for another round")
            break
        round_began = now
    report.plot_rows(arguments.out / f"{name}.png", title, result, OURS, THEIRS)


if __name__ == "__main__":
    main()
