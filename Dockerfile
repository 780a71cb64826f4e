# docker build -t lit_rnn .
# docker run --rm --gpus all --shm-size 2g -v lit_rnn_data:/data -v lit_rnn_runs:/runs lit_rnn fit
#
# --gpus all    hands over the GPUs (the host needs the NVIDIA container toolkit); leave it out to train on the CPU.
# --shm-size    data loader workers pass batches through /dev/shm, and Docker's default of 64 MB is soon full.
# Folders of the host in place of named volumes (-v "$PWD/runs:/runs") also need --user "$(id -u):$(id -g)".
FROM python:3.11-slim

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
ENTRYPOINT ["python", "-m", "lit_rnn"]
