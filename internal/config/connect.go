package config

// connectKeys are what mode connect adds to the keys of every listener.
func (l *Listener) connectKeys() []field {
	return []field{
		key("users", text(&l.Users)),
		key("tls", l.readTLS),
		key("labels", readWants(&l.Labels)),
		key("select", some(l.readSelect)),
		key("sessions", l.readSessions),
		key("users_may", some(l.readRights)),
		key("verify_name", value(&l.VerifyName, parseVerify)),
	}
}

func (l *Listener) readTLS(n node) {
	var t TLS
	n.fields(
		required("certificate", "path of a PEM file", text(&t.Certificate)),
		required("key", "path of a PEM file", text(&t.Key)),
	)
	l.TLS = &TLS{Certificate: n.file.beside(t.Certificate), Key: n.file.beside(t.Key)}
}

func parseVerify(s string) (string, error) {
	s, err := choice([]string{"off", "log", "deny"})(s)
	if s == "off" {
		return "", err
	}
	return s, err
}
