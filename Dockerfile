# One image for every process: `outwait worker` (the default), `outwait web`, `outwait flower`, and the rest of the
# command line. It writes to /data and /tmp alone, so its root can be read-only.

FROM python:3.13-slim AS build
WORKDIR /app
COPY requirements.lock .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY . .
RUN /venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .
# Modules in /handlers are found, and behind all others: a celery.py there hides no installed package.
RUN echo /handlers > "$(/venv/bin/python -c 'import site; print(site.getsitepackages()[0])')/handlers.pth"

FROM python:3.13-slim
# /data: working directory, for what `file:` targets write. /handlers: mount your modules with handlers there.
RUN useradd --uid 10001 --create-home outwait && install --directory --owner outwait /data /handlers
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 \
    OUTWAIT_LOG__FORMAT=json OUTWAIT_WORKER__ALIVE=/tmp/outwait-alive
USER outwait
WORKDIR /data
EXPOSE 8080 5555
# The worker touches this file whenever it has looked in Redis for what is due.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD test -n "$(find /tmp/outwait-alive -mmin -1 2>/dev/null)"
ENTRYPOINT ["outwait"]
CMD ["worker"]
