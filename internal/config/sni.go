package config

// sniKeys are what mode sni adds to the keys of every listener.
func sniKeys() []field {
	return []field{
		later("transparent", "off"),
		later("routes"),
		later("otherwise"),
		later("opaque"),
		later("capture"),
	}
}
