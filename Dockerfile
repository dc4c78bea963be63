# The relay, without root, on a file system that may be read-only: docs/deploy.md.

FROM python:3.13 AS packages
COPY requirements.txt /src/
COPY requirements /src/requirements
# With gunicorn's parser in C, which is compiled here: the image below has no compiler.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir -r /src/requirements.txt -r /src/requirements/client.txt -r /src/requirements/fast.txt

FROM python:3.13-slim
# /data is for SOCKET2ME_STORE_URL=sqlite:////data/relay.db.
RUN useradd --system --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin socket2me \
    && install -d -o socket2me -g socket2me -m 0700 /data
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY wsgi.py gunicorn.conf.py ./
COPY socket2me socket2me
COPY socket2me_flask socket2me_flask
# Nothing is compiled when the relay starts, nor at each health check.
RUN python -m compileall -q socket2me socket2me_flask

# gunicorn's worker keeps a file to show that it lives: /dev/shm can be written where the rest cannot.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GUNICORN_CMD_ARGS="--worker-tmp-dir /dev/shm" \
    SOCKET2ME_BIND=0.0.0.0

USER 10001
EXPOSE 8000
VOLUME /data
STOPSIGNAL SIGTERM

# One call through the relay, with the first key if it asks for keys. SOCKET2ME_ALLOWED_HOSTS has to have 127.0.0.1.
HEALTHCHECK --interval=60s --timeout=15s --start-period=15s --retries=3 \
    CMD SOCKET2ME_API_KEY="${SOCKET2ME_API_KEY:-${SOCKET2ME_API_KEYS%%,*}}" python -m socket2me check --server "http://127.0.0.1:${PORT:-8000}"

CMD ["gunicorn", "-k", "eventlet", "wsgi:app"]
