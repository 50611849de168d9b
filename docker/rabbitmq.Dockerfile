# A RabbitMQ broker of Debian with our store beside its own, as an enabled plugin: RabbitMQ 4.0 of Debian 13, or with
# --build-arg SUITE=testing what Debian testing has today. Build from the top of the clone:
#   docker build -f docker/rabbitmq.Dockerfile -t khepri-bridge-rabbitmq .
ARG SUITE=trixie
FROM debian:${SUITE}-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends rabbitmq-server \
 && rm -rf /var/lib/apt/lists/*
COPY scripts/rabbitmq-plugin /build/scripts/
COPY erlang /build/erlang
# docs/guide-rabbitmq.md, as it is done on a broker's host.
RUN /build/scripts/rabbitmq-plugin /usr/lib/rabbitmq/lib/rabbitmq_server-* \
 && rabbitmq-plugins enable --offline khepri_bridge \
 && rm -rf /build
COPY docker/rabbitmq-entrypoint /usr/local/bin/
COPY docker/inetrc /etc/khepri_bridge/inetrc
ENV ERL_INETRC=/etc/khepri_bridge/inetrc RABBITMQ_USE_LONGNAME=true RABBITMQ_LOGS=- LANG=C.UTF-8
VOLUME /var/lib/rabbitmq
EXPOSE 4369 5672
ENTRYPOINT ["/usr/local/bin/rabbitmq-entrypoint"]
