package main

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"swivel/internal/proxyproto"
)

// unwrapRelay is swivel as a load balancer's backend: each client begins with a PROXY
// header, and is connected from the address that it names.
func unwrapRelay(swivel string) *relay {
	return &relay{name: "swivel-unwrap", kind: ours, file: swivel, door: header, env: []string{"GOMAXPROCS=1"},
		works: cpuWorks, config: unwrapConfig,
		args: func(s site) []string { return []string{"-config", s.config} }}
}

// unwrapConfig allows clients on loopback: they need no route.
func unwrapConfig(s site) string {
	return fmt.Sprintf("listeners: [{listen: %s, mode: unwrap, from: [127.0.0.0/8], to: %s, allow_sources: [127.0.0.0/8]}]\n", s.listen, s.origin)
}

// header is a PROXY header of version 2. The client that it names is another than c,
// of which the kernel has a connection with that address and port.
func header(c blocking, origin netip.AddrPort) error {
	name, err := unix.Getsockname(int(c))
	if err != nil {
		return err
	}
	sa := name.(*unix.SockaddrInet4)
	client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 2, sa.Addr[3]}), uint16(sa.Port))
	return c.write(proxyproto.AppendV2(nil, proxyproto.Header{Src: client, Dst: origin}))
}
