package listener

import "runtime"

// growStack makes the stack of this goroutine 8 KB, which connecting needs. It would
// otherwise grow in the depth of that, twice, and each time every frame above is looked
// at and moved: a quarter of the CPU time that a new connection took outside of the
// kernel. The price is 4 KB for a client that lets us wait for its first bytes.
//
//go:noinline
func growStack() {
	var room [5 << 10]byte
	runtime.KeepAlive(&room)
}
