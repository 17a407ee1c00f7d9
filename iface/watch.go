package iface

import (
	"context"
	"errors"
	"time"
)

const (
	// gap is the least time between two readings: even a storm of events causes no
	// more than 20 a second.
	gap = 50 * time.Millisecond

	// settle is the time from a reading that an event caused to one more. When a
	// link goes down the kernel tells of the link alone, and not of the IPv4 routes
	// that go with it: the reading must not have come in between.
	settle = 200 * time.Millisecond

	// retry is the time to the next attempt when the kernel cannot be asked or
	// listened to, out of memory or descriptors.
	retry = time.Second
)

// Watch calls changed with the host as it is now, and then after each change
// that a method of Host can tell. It makes the calls one at a time, from its
// caller's goroutine, and returns nil when ctx is done.
//
// The first change is seen at once, the next ones as often as every gap. The
// host is also read once in every, whatever the kernel tells; zero means never.
//
// Watch returns an error only when it cannot read the host in the beginning.
// Trouble that comes later is outlived: until the kernel tells of changes again,
// the host is read at each retry. Watch holds two descriptors, so that it needs
// no others when the process has run out.
func Watch(ctx context.Context, every time.Duration, changed func(*Host)) error {
	w := watcher{every: every, changed: changed}
	return w.run(ctx)
}

// watcher is a Watch that is running.
type watcher struct {
	every   time.Duration
	changed func(*Host)
	last    *Host // what changed was told last, nil before
}

func (w *watcher) run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := w.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if w.poll() != nil && w.last == nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
	return nil
}

// follow reads the host now and after each event. It returns when ctx is done,
// and on an error that asks for new sockets.
func (w *watcher) follow(ctx context.Context) error {
	// Subscribed first: what changes while the host is read is an event to come.
	e, err := subscribe()
	if err != nil {
		return err
	}
	defer e.close()
	defer context.AfterFunc(ctx, e.close)()
	c, err := dial(bufSize)
	if err != nil {
		return err
	}
	defer c.close()

	for next := w.every; ; {
		switch err := w.read(c); {
		case errors.Is(err, errInterrupted):
			next = gap // and last stays: in a torn table, addresses seem gone that are not
		case err != nil:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(gap):
		}
		event, err := e.wait(next)
		if err != nil {
			return err
		}
		next = w.every
		if event {
			next = settle
		}
	}
}

// poll reads the host once, through a socket of its own.
func (w *watcher) poll() error {
	c, err := dial(bufSize)
	if err != nil {
		return err
	}
	defer c.close()
	return w.read(c)
}

// read reads the host, and calls changed if it is not as it was.
func (w *watcher) read(c *conn) error {
	h, err := c.host()
	if err != nil {
		return err
	}
	if w.last != nil {
		h.inherit(w.last)
		if h.equal(w.last) {
			return nil
		}
	}
	w.last = h
	w.changed(h)
	return nil
}
