# A simulation server: the command khepri-bridge on Debian 13's own Python 3.13 and its packages.
# Build from the top of the clone:
#   docker build -f docker/simulation.Dockerfile -t khepri-bridge-simulation .
FROM debian:trixie-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip python3-hatchling erlang-base
WORKDIR /build
COPY pyproject.toml README.md LICENSE rebar.config ./
COPY erlang erlang
COPY bridge bridge
# Debian's packages stand for the dependencies: no package index is asked, and apt has checked their signatures.
RUN pip install --no-index --no-deps --no-build-isolation --no-compile --break-system-packages --prefix /usr \
        --root /out . \
 && install -D /usr/lib/erlang/erts-*/bin/epmd /out/usr/local/bin/epmd

FROM debian:trixie-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-cryptography python3-msgspec python3-numpy \
        python3-pythonjsonlogger python3-rich python3-tenacity python3-typer python3-uvloop \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 1000 --home-dir /data --no-create-home khepri \
 && install -d -o khepri -g khepri -m 0700 /data
COPY --from=build /out /
COPY docker/simulation-entrypoint /usr/local/bin/
# A name that no server answers for fails after a second, not ten: homeservers come and go.
ENV RES_OPTIONS="timeout:1 attempts:1"
ENV HOME=/data LANG=C.UTF-8 PYTHONUNBUFFERED=1
WORKDIR /data
VOLUME /data
ENTRYPOINT ["/usr/local/bin/simulation-entrypoint"]
CMD ["--help"]
