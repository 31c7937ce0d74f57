# HMR-SKEL in a container: the Beam job and the hmr-skel commands, on a GPU or (--build-arg DEVICE=cpu) without one.
#
#   docker build -t hmr-skel .                                docker build -t hmr-skel:cpu --build-arg DEVICE=cpu .
#   docker run --rm --gpus all --shm-size 2g -v /data:/data hmr-skel \
#       hmr-skel build --annotations '/data/labels/*.npz' --images /data/tars \
#       --body-models /data/body_models --output /data/hmr_skel
#   docker run --rm -v /data:/data hmr-skel:cpu hmr-skel inspect /data/hmr_skel
#
# Mounted folders are written by user 1000; run with --user "$(id -u):$(id -g)" for another one.

# For workers of Flink, Spark or Dataflow: --build-arg BASE=apache/beam_python3.11_sdk:VERSION, of the apache-beam installed.
ARG BASE=python:3.11-slim
FROM $BASE

ARG DEVICE=gpu
# Extras of setup.cfg, with commas between: --build-arg EXTRAS=s3,gs for files behind s3:// and gs://, dask for its runner.
ARG EXTRAS=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /opt/hmr-skel
COPY constraints.txt setup.cfg pyproject.toml ./

# PyPI's torch for Linux brings its CUDA libraries along; torch without them has an index of its own. The version is the
# one that constraints.txt pins in both cases. It comes first because it is large and changes seldom.
RUN case "$DEVICE" in \
      gpu) pip install -c constraints.txt torch ;; \
      cpu) pip install -c constraints.txt --no-deps --index-url https://download.pytorch.org/whl/cpu torch ;; \
      *) echo "DEVICE=$DEVICE: expected gpu or cpu" >&2; exit 1 ;; \
    esac

# What the project needs, before the project: without its sources the package is empty, and this layer stays as it is
# while they change.
RUN pip install -c constraints.txt ".${EXTRAS:+[$EXTRAS]}" && pip uninstall -y hmr-skel

COPY README.md LICENSE ./
COPY schemas schemas
COPY fitting fitting
COPY pipelines pipelines
COPY train train
# Editable, so that `beam run pipelines/build_hmr_skel.py` and the installed commands are the same code.
RUN pip install --no-deps -e . \
    && useradd --create-home --uid 1000 skel \
    && mkdir demo bench && chmod 1777 demo bench

USER skel
ENV HOME=/home/skel
# Any command of the project: `beam run FILE ...`, `hmr-skel COMMAND ...`, `python -m pipelines.demo.data DIR`.
CMD ["hmr-skel", "--help"]
