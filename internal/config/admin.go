package config

import (
	"fmt"
	"net/netip"
)

// Admin is where the state of swivel is seen, and changed.
type Admin struct {
	Listen  string         // host:port for net.Listen; "" means nowhere
	Clients []netip.Prefix // who may connect; none means everyone who can reach it, on loopback only
}

func (a *Admin) read(n node) {
	n.fields(
		required("listen", "such as 127.0.0.1:9080", value(&a.Listen, parseOneListen)),
		key("clients", some(list(&a.Clients, parseClients))),
	)
	if a.Listen == "" || n.has("clients") {
		return
	}
	if at := exposed([]string{a.Listen}); at != "" {
		n.errorf("whoever reaches %s could see and change what swivel does (add clients, or listen on 127.0.0.1)", at)
	}
}

// parseOneListen reads where to listen: one TCP port.
func parseOneListen(text string) (string, error) {
	s, err := parseListen(text)
	switch {
	case err != nil:
		return "", err
	case s.network != "tcp" || s.len() != 1:
		return "", fmt.Errorf("%q: want one TCP port", shorten(text))
	}
	return s.String(), nil
}
