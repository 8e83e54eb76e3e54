# The same environment as `make env`, as an image that runs `lichen`.
#
#   docker build -t lichen .
#   docker run --rm -v "$PWD/photos:/data/photos:ro" -v "$PWD/out:/data/out" lichen compress photos out/photos.lichen
#
# Mounted folders that are written to must be writable for user 1000 (or run with --user).

FROM python:3.11-slim-bookworm AS build

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/lichen
WORKDIR /src

# Dependencies first, from the declaration and empty packages, so that a change of the code does not install
# torch and ray again.
COPY pyproject.toml setup.py README.md LICENSE ./
RUN mkdir lichen models pipeline jobs \
    && touch lichen/__init__.py models/__init__.py pipeline/__init__.py jobs/__init__.py \
    && /opt/lichen/bin/pip install --quiet .

COPY lichen lichen
COPY models models
COPY pipeline pipeline
COPY jobs jobs
RUN rm -rf build ./*.egg-info && /opt/lichen/bin/pip install --quiet --no-deps --force-reinstall .

FROM python:3.11-slim-bookworm

# numba caches compiled code, ray and matplotlib write settings: all below the home directory.
RUN useradd --create-home --uid 1000 lichen \
    && mkdir /data && chown lichen:lichen /data
COPY --from=build /opt/lichen /opt/lichen
ENV PATH=/opt/lichen/bin:$PATH \
    NUMBA_CACHE_DIR=/home/lichen/.cache/numba
USER 1000
WORKDIR /data
ENTRYPOINT ["lichen"]
CMD ["--help"]
