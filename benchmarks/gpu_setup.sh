#!/bin/sh
# Prepares a machine with an NVIDIA GPU and no network: installs carried wheels beside a Python that has PyTorch.
#
#   sh benchmarks/gpu_setup.sh PARTS SITE     then:  . SITE/environment
#
# PARTS holds wheels, and large ones cut into NAME.whl.part-00, -01, ... MLX finds cuDNN, cuBLAS and the rest in
# SITE/nvidia, a link to what PyTorch brought; it compiles its kernels with the CUDA headers there.
set -eu
parts=$1
site=$2
python=${PYTHON:-python3}

wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
cp "$parts"/*.whl "$wheels"/
for first in "$parts"/*.whl.part-00; do
    [ -e "$first" ] || continue
    cat "${first%00}"* > "$wheels/$(basename "${first%.part-00}")"
done
"$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$wheels"/*.whl

nvidia=$("$python" -c 'import nvidia; print(list(nvidia.__path__)[0])')
ln -sfn "$nvidia" "$site/nvidia"
cuda=
for place in "$nvidia/cu13" "${CUDA_HOME:-}" /usr/local/cuda; do
    if [ -z "$cuda" ] && [ -e "$place/include/cuda_runtime.h" ]; then cuda=$place; fi
done
libraries=$(find "$nvidia" -type d -name lib | tr '\n' ':')
cat > "$site/environment" <<END
export PYTHONPATH="$site:$(pwd)/src"
export CUDA_HOME="$cuda"
export LD_LIBRARY_PATH="$libraries\${LD_LIBRARY_PATH:-}"
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
END
. "$site/environment"
"$python" - <<'END'
import time

began = time.perf_counter()
import mlx.core as mx

mx.eval(mx.random.normal((256, 256)) @ mx.random.normal((256, 256)) + 1)
print(f"MLX {mx.__version__} on {mx.default_device()}, ready in {time.perf_counter() - began:.1f} s:", mx.device_info())
END
