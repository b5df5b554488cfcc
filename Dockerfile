# The image of the command entrapg, without anything else:
#
#   docker build --build-arg VERSION=v1.2.3 -t entrapg .
#   docker run --rm entrapg proxy --help
#
# GO is an image with Go 1.26 or newer, and root certificates.
ARG GO=golang:1.26

FROM ${GO} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /entrapg ./cmd/entrapg

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /entrapg /entrapg
USER 65532:65532
ENTRYPOINT ["/entrapg"]
