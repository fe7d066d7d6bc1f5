# The image of replicas, workers and migrations, and the target `loadtest`. The commands are in docker-compose.yml.
FROM python:3.12.8-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY transferd transferd
# The same versions as in the tests.
RUN pip install -c constraints.txt ".[tracing]"

FROM build AS build-loadtest
RUN pip install -c constraints.txt locust

# Locust and the scenarios of the load test.
FROM python:3.12.8-slim-bookworm AS loadtest
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin transferd
COPY --from=build-loadtest /venv /venv
COPY loadtest /loadtest
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /
EXPOSE 8089

FROM python:3.12.8-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin transferd
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8080
CMD ["transferd", "serve"]
