# docker build -t swivel .
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /swivel .

# Nothing but the program, and not as root. What needs privileges (README) is run with
# --user 0 --cap-add NET_ADMIN.
FROM scratch
COPY --from=build /swivel /swivel
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/swivel"]
