package config

// unwrapKeys are what mode unwrap adds to the keys of every listener.
func unwrapKeys() []field {
	return []field{
		later("from"),
		later("to"),
		later("source"),
		later("udp_header"),
		later("allow_sources"),
	}
}
