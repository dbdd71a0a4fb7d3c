# An image that runs headrace: `docker build -t headrace .`, then `docker run headrace headrace train cartpole_dqn`.
# Ray's launcher and KubeRay start Ray in it as well. For a GPU: `docker build --build-arg GPU=yes -t headrace:gpu .`;
# torch brings its CUDA libraries along, the machine needs NVIDIA's driver and container toolkit.
FROM python:3.11.14-slim-bookworm

# rsync: Ray's launcher copies files into the container with it. wget: KubeRay asks with it whether Ray is well.
# Debian keeps one version of a package a release, so a version given here would be gone some day.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes rsync wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home headrace

WORKDIR /opt/headrace
COPY constraints.txt ./
ARG GPU=no
# Without a GPU, torch without its CUDA libraries: 0.2 GB instead of 3.
RUN if [ "$GPU" = no ]; then \
        pip config --global set global.extra-index-url https://download.pytorch.org/whl/cpu; \
    fi \
    && pip install --no-cache-dir --constraint constraints.txt torch==2.13.0

COPY pyproject.toml README.md headrace.py ./
COPY replay_server replay_server
COPY learners learners
COPY actors actors
COPY distributed distributed
RUN pip install --no-cache-dir --constraint constraints.txt --editable '.[train,cluster,metrics,remote]'
# For run.checkpoint_url at s3:// (without constraints.txt, because it needs an older python-dateutil) or gs://:
# RUN pip install --no-cache-dir s3fs==2026.9.0
# RUN pip install --no-cache-dir --constraint constraints.txt gcsfs==2026.10.0

# A cluster without its token is open to everybody who reaches it.
ENV RAY_AUTH_MODE=token \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# By number, so that Kubernetes can tell that it is not root. No entrypoint: Ray's launcher runs `bash` in the image.
USER 1000:1000
WORKDIR /home/headrace
CMD ["headrace", "--help"]
