# docker build -t lit_rnn .
# docker run --rm --gpus all --shm-size 2g -v lit_rnn_data:/data -v lit_rnn_runs:/runs lit_rnn fit
#
# --gpus all    hands over the GPUs (the host needs the NVIDIA container toolkit); leave it out to train on the CPU.
# --shm-size    data loader workers pass batches through /dev/shm, and Docker's default of 64 MB is soon full.
# Folders of the host in place of named volumes (-v "$PWD/runs:/runs") also need --user "$(id -u):$(id -g)".
#
# compose.yaml says the same as a file. `make docker-steps` runs these lines without Docker.
FROM python:3.11-slim

LABEL org.opencontainers.image.title="lit_rnn" \
      org.opencontainers.image.description="Train, compare, take apart and attack recurrent networks with a long memory, under one protocol" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim"

ENV PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib

# The scan backends `native` and `compiled` compile themselves on first use.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY . .
RUN pip install -c constraints.txt .

RUN useradd --create-home lit_rnn && install -d -o lit_rnn -g lit_rnn /data /runs
USER lit_rnn
VOLUME ["/data", "/runs"]

# From here the defaults `data` and `runs` are the two volumes.
WORKDIR /
# One step of the quickstart in small, on the CPU, which leaves no files: does everything that training needs still work?
HEALTHCHECK --interval=10m --timeout=2m --retries=2 CMD ["python", "-m", "lit_rnn", "fit", "--trainer.fast_dev_run", "1", "--data.init_args.delay", "10", "--threads", "1"]
ENTRYPOINT ["python", "-m", "lit_rnn"]
CMD ["--help"]
