# bitlaw with all it needs, for a processor: the embedded study runs without a network from then on but for its data.
#
#     docker build -t bitlaw .
#     docker run --rm -v "$PWD/results:/bitlaw/results" -v "$PWD/data/raw:/bitlaw/data/raw" bitlaw
#     docker run --rm -v "$PWD:/here" -w /here bitlaw bitlaw measure FILE --model /bitlaw/data/ladder/ladder-1.9m/step1200
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /bitlaw
COPY . .
RUN make .venv/ready
ENV PATH=/bitlaw/.venv/bin:$PATH
CMD ["make", "run"]
