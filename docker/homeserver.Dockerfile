# A homeserver: the Erlang release with its own runtime. Build from the top of the clone, after scripts/setup has put
# Khepri's sources into _checkouts:
#   docker build -f docker/homeserver.Dockerfile -t khepri-bridge-homeserver .
# OTP 27 of Debian 13 with the Khepri of _checkouts; or what Debian testing has today, with the Khepri of its RabbitMQ:
#   docker build -f docker/homeserver.Dockerfile -t khepri-bridge-homeserver:testing --build-arg SUITE=testing \
#       --build-arg KHEPRI=rabbitmq .
ARG SUITE=trixie
FROM debian:${SUITE}-slim AS build
ARG KHEPRI=checkouts
RUN apt-get update \
 && apt-get install -y --no-install-recommends rebar3 erlang-base erlang-asn1 erlang-crypto erlang-dev \
        erlang-eunit erlang-inets erlang-mnesia erlang-os-mon erlang-parsetools erlang-public-key \
        erlang-runtime-tools erlang-ssl erlang-syntax-tools erlang-tools \
        erlang-common-test erlang-proper \
 && cd /var/cache/apt/archives \
 && if [ "$KHEPRI" = rabbitmq ]; then \
        apt-get download rabbitmq-server && dpkg-deb -x rabbitmq-server_*.deb /rabbitmq \
     && mkdir /khepri && for name in khepri ra aten gen_batch_server horus seshat; do \
            cp -R /rabbitmq/usr/lib/rabbitmq/lib/*/plugins/$name-[0-9]* /khepri/$name || exit 1; \
        done \
     && echo '{deps, [ra, aten, gen_batch_server, horus, seshat]}.' >/khepri/khepri/rebar.config; fi
WORKDIR /build
# Khepri changes seldom, our application often: the layer below is kept between builds.
COPY _checkouts _checkouts
COPY rebar.config ./
COPY erlang erlang
# rebar3 takes an application in _checkouts as it is when it has been compiled already.
RUN if [ "$KHEPRI" = rabbitmq ]; then rm -rf _checkouts && mv /khepri _checkouts; fi \
 && rebar3 release \
 && mv _build/default/rel/khepri_bridge /opt/khepri_bridge

FROM debian:${SUITE}-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends libncurses6 libsctp1 libssl3t64 libstdc++6 libsystemd0 zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 1000 --home-dir /data --no-create-home khepri \
 && install -d -o khepri -g khepri -m 0700 /data
COPY --from=build /opt/khepri_bridge /opt/khepri_bridge
COPY docker/homeserver-entrypoint docker/homeserver-eval /usr/local/bin/
COPY docker/inetrc /etc/khepri_bridge/inetrc
ENV ERL_INETRC=/etc/khepri_bridge/inetrc
ENV KB_DATA_DIR=/data KB_LISTEN=0.0.0.0 KB_TYPE=homeserver KB_INSTANCE=local KB_STORE=homeserver LANG=C.UTF-8
VOLUME /data
EXPOSE 4369
ENTRYPOINT ["/usr/local/bin/homeserver-entrypoint"]
CMD ["foreground"]
