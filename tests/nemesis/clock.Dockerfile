# An image of this project whose virtual machine, or Python, may be told another wall clock: by a file that holds an offset
# in seconds ("+3600"). Only CLOCK_REALTIME moves, as on a host whose clock is set.
ARG BASE
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends libfaketime && rm -rf /var/lib/apt/lists/* \
 && mkdir /clock && echo +0 >/clock/offset && ln -s /usr/lib/*/faketime/libfaketime.so.1 /usr/local/lib/
# Into the virtual machine alone: the release's shell script would stand still for ever (libfaketime 0.9.10 and dash).
RUN for beam in /opt/khepri_bridge/erts-*/bin/beam.smp; do \
        [ -e "$beam" ] || continue; \
        mv "$beam" "$beam.real" \
     && printf '#!/bin/sh\nLD_PRELOAD=/usr/local/lib/libfaketime.so.1 exec "%s.real" "$@"\n' "$beam" >"$beam" \
     && chmod 755 "$beam" || exit 1; \
    done
ENV FAKETIME_TIMESTAMP_FILE=/clock/offset FAKETIME_NO_CACHE=1 FAKETIME_DISABLE_SHM=1 FAKETIME_DONT_FAKE_MONOTONIC=1
