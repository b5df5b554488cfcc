# The image of the command entrapg, without anything else:
#
#   docker build --build-arg VERSION=v1.2.3 -t entrapg .
#   docker run --rm entrapg proxy --help
#
# GO is an image with Go 1.26 or newer, and root certificates. BINARY is the stage that the
# command is from.
ARG GO=golang:1.26
ARG BINARY=source

FROM ${GO} AS source
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /entrapg ./cmd/entrapg

# For releases: goreleaser has built the command. Other builds find the license only, which
# lets builders that build unused stages succeed.
FROM scratch AS release
ARG TARGETPLATFORM
COPY LICENSE ${TARGETPLATFORM}/entrap[g] /

FROM ${BINARY} AS binary

FROM ${GO} AS roots

FROM scratch
COPY --from=roots /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=binary /entrapg /entrapg
USER 65532:65532
ENTRYPOINT ["/entrapg"]
