package router

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"swivel/rotate"
)

// Check connects to the backends of every Target of d that wants that, as often as
// each says, until ctx is done. Those that are left out then are so no longer.
func (d *Door) Check(ctx context.Context) {
	var checking sync.WaitGroup
	for _, t := range d.targets() {
		if t.Kind != ToBackends || t.Backends.Every == 0 {
			continue
		}
		for _, x := range t.Backends.list {
			checking.Go(func() { d.watch(ctx, t, x) }) // until ctx is done
		}
	}
	checking.Wait()
}

// targets returns where d may send clients.
func (d *Door) targets() (all []*Target) {
	for i := range d.Routes.routes {
		all = append(all, &d.Routes.routes[i].Target)
	}
	for _, t := range d.Otherwise {
		all = append(all, t)
	}
	return all
}

func (d *Door) watch(ctx context.Context, t *Target, x *backend) {
	tick := time.NewTicker(t.Backends.Every)
	defer tick.Stop()
	for {
		err := d.check(ctx, t, x)
		switch {
		case ctx.Err() != nil:
			x.mu.Lock()
			x.until = time.Time{}
			x.mu.Unlock()
			return
		case err == nil:
			t.Backends.succeeded(x)
		case x.isToBlame(ctx, err):
			t.Backends.failed(x, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// check connects to x, and closes the connection.
func (d *Door) check(ctx context.Context, t *Target, x *backend) error {
	ctx, cancel := context.WithTimeout(ctx, min(d.Dial, max(t.Backends.Every, time.Second)))
	defer cancel()
	addrs, err := x.addrs(ctx, d.Lookup, d.loops)
	if err != nil {
		return err
	}
	leave := t.Leave
	if leave == nil {
		leave = d.Leave
	}
	up, err := leave(ctx, rotate.Request{Addrs: addrs, Target: x.target.Host(), Client: netip.Addr{}})
	if err != nil {
		return err
	}
	up.SetLinger(0) // no TIME_WAIT for each
	up.Close()
	up.Done()
	return nil
}
