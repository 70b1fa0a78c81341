"""What a worker imports before it can load a model."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import sys, pensieve.inference.mlx.backend
print(*(name for name in ("transformers", "mlx_lm") if name in sys.modules))
"""


def test_the_engine_brings_mlx_lms_models_and_not_its_tokenizers() -> None:
    """Those import transformers, which takes longer than everything else together."""
    found = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, text=True).stdout
    assert found.split() == ["mlx_lm"]
