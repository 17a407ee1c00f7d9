package sni

// Alert is why a TLS server ends a connection, RFC 8446 section 6.2.
type Alert byte

// Those that answer a hello.
const (
	AccessDenied     Alert = 49  // the name leads where nobody may go
	DecodeError      Alert = 50  // ErrMalformed, ErrTooLarge
	InternalError    Alert = 80  // what the name leads to does not answer
	MissingExtension Alert = 109 // there is no name
	UnrecognizedName Alert = 112 // the name leads nowhere
)

// Record returns the record that says so: a fatal alert.
func (a Alert) Record() []byte {
	const fatal = 2
	// The version is TLS 1.2's whatever the client offered, RFC 8446 section 5.1.
	return []byte{typeAlert, majorVersion, 3, 0, 2, fatal, byte(a)}
}
