"""Our server next to mlx-lm's in one run: prompts and answers, one stream and many, on random weights of real shapes.

Both load the same folder, answer the same prompts greedily, and take turns; with `--alone` first one has the machine
for all rounds, then the other. Each prompt is new, so that no cache of prompts helps either side. Results are written
after each round, so that a run that is cut off still tells.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
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
    """What is asked at once, what of it is measured, and how much faster we want to be on Phi-3-mini's shape."""

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
    shared_bytes: float
    """Weights that each step reads; of the embeddings it reads next to nothing."""
    expert_bytes: float
    """All experts of a mixture."""
    expert_share: float
    """Of the experts, what one token goes through."""
    prompt_parameters: float
    """Multiplied for each token of a prompt; the output layer is not, it is needed for the last one only."""
    cache_bytes_per_token: float
    """Of one layer."""
    windows: tuple[int, ...]
    """The tokens that each layer looks at, at most."""

    def tokens_per_second(self, scenario: Scenario) -> float:
        """Of decoding by memory, of a prompt by arithmetic, of both together for a batch."""
        prefill_seconds = scenario.prompt_tokens * 2 * self.prompt_parameters / self.flops_per_second
        if scenario.kind == "prefill":
            return scenario.prompt_tokens / prefill_seconds
        context = scenario.prompt_tokens + scenario.output_tokens / 2
        context_bytes = sum(min(context, window) for window in self.windows) * self.cache_bytes_per_token
        read_share = 1 - (1 - self.expert_share) ** scenario.num_streams  # streams choose experts at random
        step_bytes = self.shared_bytes + read_share * self.expert_bytes + scenario.num_streams * context_bytes
        step_seconds = step_bytes / self.copy_bytes_per_second
        if scenario.kind == "decode":
            return 1 / step_seconds
        seconds = scenario.num_streams * prefill_seconds + scenario.output_tokens * step_seconds
        return scenario.num_streams * scenario.output_tokens / seconds


def roofline_of(shape: str, folder: Path, facts: dict[str, Any]) -> Roofline:
    """From the files and the config."""
    config = SHAPES[shape]
    shared_bytes = expert_bytes = shared_parameters = expert_parameters = 0
    for name, num_bytes, num_parameters in stored_arrays(folder):
        if ".experts." in name:
            expert_bytes += num_bytes
            expert_parameters += num_parameters
        elif "embed_tokens" not in name:
            shared_bytes += num_bytes
            shared_parameters += 0 if name.startswith("lm_head") else num_parameters
    share = config.get("num_experts_per_tok", 0) / config.get("num_local_experts", 1)
    kinds = config.get("layer_types") or ["full_attention"] * config["num_hidden_layers"]
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return Roofline(
        facts["copy_bytes_per_second"],
        facts["matrix_flops_per_second"],
        shared_bytes,
        expert_bytes,
        share,
        shared_parameters + share * expert_parameters,
        2 * 2 * config["num_key_value_heads"] * width,
        tuple(config["sliding_window"] if kind.startswith("sliding") else sys.maxsize for kind in kinds),
    )


def stored_arrays(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Name, bytes and parameters of each array in the files; scales and biases are no parameters."""
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                per_byte = 2 if entry["dtype"] == "U32" else 0.5  # packed to 4 bits, or bfloat16
                yield name, end - begin, int((end - begin) * per_byte) if name.endswith(".weight") else 0


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, help="default: phi-3-mini on a GPU, tiny-phi-3 on a CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=540.0, help="start no round that would end later")
    parser.add_argument("--folder", type=Path, help="where the model is made, or is already")
    parser.add_argument("--out", type=Path, default=Path(".cache/benchmarks"))
    parser.add_argument("--without", nargs="*", default=[], help="leave out scenarios whose name holds one of these")
    parser.add_argument("--only", default="", help="take scenarios whose name holds this")
    parser.add_argument("--alone", action="store_true", help="one server after the other, so that each has the machine")
    parser.add_argument("--name", help="of the results; default: gpu-SHAPE")
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
        known = {"shape": shape, "label": LABEL, "machine": facts, "is_alone": arguments.alone}
        scenarios = tuple(
            one if shape == "phi-3-mini" else one._replace(target=0.0)
            for one in (TINY if shape.startswith("tiny") else SCENARIOS)
            if arguments.only in one.name and not any(part in one.name for part in arguments.without)
        )
        comparison = Comparison(arguments, scenarios, roofline_of(shape, model, facts), known, began)
        starts = launches(model, home, arguments.weights)
        if not arguments.alone:
            comparison.run([stack.enter_context(start()) for start in starts], arguments.seconds)
        for place, start in enumerate(starts if arguments.alone else ()):
            with start() as server:
                try:
                    comparison.run([server], arguments.seconds * (place + 1) / len(starts))
                except (RuntimeError, OSError) as problem:  # what the other one does is still worth knowing
                    print(f"{server.name} failed: {problem}", flush=True)
        comparison.plot()


def launches(model: Path, home: Path, weights: str) -> list[Callable[[], AbstractContextManager[rivals.Server]]]:
    """How each server is started."""
    environment = {
        "PENSIEVE_MLX_WEIGHTS": weights,
        "PENSIEVE_MLX_PREFIX_CACHE_MIB": str(SHARE_MIB),
        "PENSIEVE_LOG_LEVEL": "debug",
    }
    options = ("--prompt-cache-bytes", str(SHARE_MIB * 2**20))
    return [
        lambda: rivals.pensieve(model, home / "ours", name=OURS, **environment),
        lambda: rivals.mlx_lm(model, home / "theirs", *options, spare_bytes=SPARE_BYTES),
    ]


def keep_logs(home: Path, out: Path) -> None:
    """Copy both servers' logs beside the results."""
    out.mkdir(parents=True, exist_ok=True)
    for log in home.rglob("*.log"):
        shutil.copy(log, out / log.name)


class Comparison:
    """The samples of a run, written out as they come."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        scenarios: tuple[Scenario, ...],
        roofline: Roofline,
        known: dict[str, Any],
        began: float,
    ) -> None:
        self._arguments = arguments
        self._scenarios = scenarios
        self._roofline = roofline
        self._known = known | {"first_answer_seconds": {}}
        self._began = began
        self._samples: list[Sample] = []
        self._name = arguments.name or f"gpu-{known['shape']}"
        how = ", one after the other" if arguments.alone else ""
        self._title = f"{known['shape']} shape, {LABEL}: {OURS} next to {THEIRS}{how}"

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    def run(self, servers: list[rivals.Server], until_seconds: float) -> None:
        """Let these take turns while there is time, and write what is known after each round."""
        for server in servers:
            self._known["first_answer_seconds"][server.name] = server.ask(prompt(16, 1), 2).first_seconds
        print(
            f"first answers (with our load), {self._seconds:.0f} s: {self._known['first_answer_seconds']}", flush=True
        )
        began = self._seconds
        for fresh in turns(self._scenarios, servers, self._arguments.rounds):
            self._samples += fresh
            number = fresh[0].round_number
            print(f"\nround {number} done, {self._seconds:.0f} s" + ("" if number else " (warm-up)"))
            self._write()
            if 2 * self._seconds - began > until_seconds:
                print("no time for another round")
                break
            began = self._seconds

    def plot(self) -> None:
        """Draw the medians."""
        result = rows(self._samples, self._scenarios, self._roofline)
        report.plot_rows(self._arguments.out / f"{self._name}.png", self._title, result, OURS, THEIRS)

    def _write(self) -> None:
        result = rows(self._samples, self._scenarios, self._roofline)
        text = report.table(result, OURS, THEIRS)
        numbers = {
            "rows": [row._asdict() for row in result],
            "samples": [sample._asdict() for sample in self._samples],
        }
        report.write(self._arguments.out, self._name, self._title, text, self._known | numbers)
        print(text, flush=True)


if __name__ == "__main__":
    main()
