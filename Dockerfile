# The command line, for CPUs:
#   docker build --tag vil .
#   docker run --rm --volume "$PWD:/work" vil encode photo.jpg --output features
FROM python:3.11-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN python -m venv /opt/vil \
    && /opt/vil/bin/pip install --no-cache-dir \
       --constraint /source/constraints.txt "/source[detection,train,tiff,zarr,geo,slides]"

FROM python:3.11-slim
COPY --from=build /opt/vil /opt/vil
RUN useradd --create-home vil
USER vil
WORKDIR /work
ENTRYPOINT ["/opt/vil/bin/vil"]
