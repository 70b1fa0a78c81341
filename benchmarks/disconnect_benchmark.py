"""How soon a client that hangs up frees its slot: one slot, one client leaves, and the next one waits for it."""

from __future__ import annotations

import time

from serving import Stream, body, median_ms, running_server

ROUNDS = 15


def freed_after(url: str, first: dict[str, object], event: bytes, pause_seconds: float) -> float:
    """Seconds from the hang-up of `first` to the start of the next request."""
    leaving = Stream(url, first)
    leaving.wait_for(event)
    time.sleep(pause_seconds)
    left_at = time.perf_counter()
    leaving.close()
    following = Stream(url, body("Hi", 1))
    started_at = following.wait_for(b"message_start")
    following.close()
    return started_at - left_at


def main() -> None:
    """Print medians and the worst, while decoding and while prefilling."""
    with running_server(PENSIEVE_LLAMACPP_PARALLEL="1") as url:
        Stream(url, body("Hi", 1)).wait_for(b"message_stop")
        decoding = [
            freed_after(url, body("Tell a long story.", 400), b"content_block_delta", 0.1) for _ in range(ROUNDS)
        ]
        prefilling = [
            freed_after(url, body(f"{number} word" * 2000, 400), b"message_start", 0.05 * (number % 10))
            for number in range(ROUNDS)
        ]
    print(f"slot freed after a hang-up, {ROUNDS} times each (ms)")
    for name, times in (("while decoding", decoding), ("while prefilling", prefilling)):
        print(f"{name:20} median {median_ms(times):7.1f}   worst {max(times) * 1e3:7.1f}")


if __name__ == "__main__":
    main()
