package relay

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tlsTunnel is a tunnel whose client speaks TLS to the relay.
type tlsTunnel struct {
	*tunnel
	client *tls.Conn
}

func newTLSTunnel(t *testing.T, l Limits) *tlsTunnel {
	t.Helper()
	tn := newTunnel(t, nil, l)
	in := tls.Server(NewConn(tn.in, nil), &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	client := tls.Client(tn.client, &tls.Config{InsecureSkipVerify: true})
	shaken := make(chan error, 1)
	go func() { shaken <- in.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	tn.Pipe = NewPipe(in, NewConn(tn.out, nil), l)
	return &tlsTunnel{tn, client}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestPipeTLS(t *testing.T) {
	up, down := random(1_000_000), random(3_000_000)

	t.Run("client half-closes first", func(t *testing.T) {
		tn := newTLSTunnel(t, Limits{})
		tn.start(t)
		go func() {
			mustWrite(t, tn.client, up)
			mustCloseWrite(t, tn.client)
		}()
		wantAll(t, tn.server, up)
		go func() {
			mustWrite(t, tn.server, down)
			mustCloseWrite(t, tn.server)
		}()
		wantAll(t, tn.client, down)
		tn.wantEnd(t, ClientClosed, false)
		if tn.Up() != int64(len(up)) || tn.Down() != int64(len(down)) {
			t.Errorf("Up, Down = %d, %d; want %d, %d", tn.Up(), tn.Down(), len(up), len(down))
		}
	})

	t.Run("upstream half-closes first", func(t *testing.T) {
		tn := newTLSTunnel(t, Limits{})
		tn.start(t)
		go func() {
			mustWrite(t, tn.server, down)
			mustCloseWrite(t, tn.server)
		}()
		wantAll(t, tn.client, down)
		go func() {
			mustWrite(t, tn.client, up)
			mustCloseWrite(t, tn.client)
		}()
		wantAll(t, tn.server, up)
		tn.wantEnd(t, UpstreamClosed, false)
	})

	t.Run("upstream resets", func(t *testing.T) {
		tn := newTLSTunnel(t, Limits{})
		tn.start(t)
		go func() {
			mustWrite(t, tn.server, down)
			settle(tn.server, patience)
			reset(tn.server)
		}()
		wantSame(t, wantReset(t, tn.client), down)
		tn.wantEnd(t, UpstreamReset, true)
	})

	t.Run("client ends within a record", func(t *testing.T) {
		tn := newTLSTunnel(t, Limits{})
		tn.start(t)
		mustWrite(t, tn.client, up[:100])
		mustWrite(t, tn.tunnel.client, []byte{23, 3, 3, 1, 0, 'x'}) // 1 of 256 bytes
		mustCloseWrite(t, tn.tunnel.client)
		wantSame(t, wantReset(t, tn.server), up[:100])
		tn.wantEnd(t, ClientReset, true)
	})

	t.Run("idle", func(t *testing.T) {
		tn := newTLSTunnel(t, Limits{Idle: 50 * time.Millisecond})
		tn.start(t)
		tn.wantEnd(t, Idle, false)
		wantReset(t, tn.client)
		wantReset(t, tn.server)
	})
}

// The reset goes to the direction that writes, and crypto/tls reads an EOF.
func TestPipeTLSResetIsNoFIN(t *testing.T) {
	answer := random(64 << 10)
	for range 20 {
		tn := newTLSTunnel(t, Limits{})
		tn.tunnel.client.SetReadBuffer(4096)
		sendBuffer(t, tn.in, 4096)
		tn.start(t)
		mustWrite(t, tn.server, answer) // more than the client's side takes
		eventually(t, "the answer on its way", func() bool { return unread(t, tn.tunnel.client) > 0 })
		reset(tn.tunnel.client)
		wantReset(t, tn.server)
		tn.wantEnd(t, ClientReset, true)
	}
}

func TestWaitWritable(t *testing.T) {
	a, b := tcpPair(t)
	full := func(fd int) error {
		for {
			if _, err := unix.Write(fd, make([]byte, 100_000)); err != nil {
				return err
			}
		}
	}
	raw, err := a.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if err := full(int(fd)); err != unix.EAGAIN {
			t.Error(err)
		}
	})
	room := make(chan struct{})
	go func() {
		waitWritable(tls.Client(a, nil))
		close(room)
	}()
	go io.Copy(io.Discard, b)
	select {
	case <-room:
	case <-time.After(patience):
		t.Error("waits although there is room")
	}
	raw.Control(func(fd uintptr) {
		if _, err := unix.Write(int(fd), []byte("x")); err != nil {
			t.Errorf("no room: %v", err)
		}
	})
	b.Close()
}
