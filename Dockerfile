# Everything in the versions of constraints/lock.txt, compiled once: reproduces the committed results to the byte.
#
#   docker build -t ple-gym .
#   docker run ple-gym compare Storm --policies host kvm oracle
#   docker run ple-gym experiments replay
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home scheduler
WORKDIR /home/scheduler/ple_gym
COPY --chown=scheduler . .
# torch without CUDA
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir -c constraints/lock.txt -e '.[viz,agents,experiments]'
USER scheduler
RUN ple-gym warmup
ENTRYPOINT ["ple-gym"]
CMD ["--help"]
