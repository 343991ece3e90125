# CPU:   docker build -t cars-hw .
# CUDA:  docker build -t cars-hw:cuda --build-arg TORCH_INDEX= .        (then: docker run --gpus all ...)
# Run:   docker run --rm -v "$PWD:/work" cars-hw search --help
FROM python:3.11-slim

# PyTorch's index for the CPU build; empty for the build with CUDA from PyPI.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# Triton compiles its launchers with a C compiler on the machine that has the GPU; only the build with CUDA has Triton.
RUN if [ -z "$TORCH_INDEX" ]; then \
      apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; fi
# Any user may write there.
ENV TRITON_CACHE_DIR=/tmp/triton

WORKDIR /opt/cars-hw
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY cars_hw cars_hw
# adb-shell is a source package without compiled parts: no compiler is needed.
RUN pip install --no-cache-dir --constraint constraints.txt \
      ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} '.[all]'

# Results belong to the user who starts the container: pass --user "$(id -u):$(id -g)".
WORKDIR /work
ENTRYPOINT ["cars-hw"]
CMD ["--help"]
