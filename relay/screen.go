package relay

import "io"

// Screen sees the first bytes of a stream before any of them is relayed: all that
// have arrived, again when there are more. It asks for more, lets them pass and sees
// nothing from then on, or returns why they may not pass, which cuts the tunnel for
// the reason Denied. At the end of the stream last is set, and there is no more.
//
// The other direction of the tunnel goes on meanwhile.
type Screen func(first []byte, last bool) (more bool, err error)

// Denial is the error of a tunnel that a Screen ended.
type Denial struct{ Err error }

func (d *Denial) Error() string { return d.Err.Error() }
func (d *Denial) Unwrap() error { return d.Err }

// screening is a stream of which a Screen is to see the beginning.
type screening struct {
	see  Screen // nil when it has seen enough
	held []byte
}

func (s *screening) over() bool { return s == nil || s.see == nil }

// add adds what was read, or the end when that is nothing. It returns what may pass,
// or that more is to be read.
func (s *screening) add(b []byte) (pass []byte, more bool, err error) {
	last := len(b) == 0
	s.held = append(s.held, b...)
	more, err = s.see(s.held, last)
	if more && !last && err == nil {
		return nil, true, nil
	}
	pass = s.held
	*s = screening{}
	if err != nil {
		return nil, false, &Denial{err}
	}
	return pass, false, nil
}

// ScreenReader returns a reader of r that shows its first bytes to see. A Conn has
// its own, with which it can still splice.
func ScreenReader(r io.Reader, see Screen) io.Reader {
	return &screenReader{r: r, screening: &screening{see: see}}
}

type screenReader struct {
	r         io.Reader
	screening *screening
	pass      []byte // may, and was not read yet
}

func (s *screenReader) Read(p []byte) (int, error) {
	for !s.screening.over() {
		n, err := s.r.Read(p)
		if n == 0 && err != io.EOF {
			return 0, err
		}
		if s.pass, _, err = s.screening.add(p[:n]); err != nil {
			return 0, err
		}
	}
	if len(s.pass) > 0 {
		n := copy(p, s.pass)
		s.pass = s.pass[n:]
		return n, nil
	}
	return s.r.Read(p)
}
