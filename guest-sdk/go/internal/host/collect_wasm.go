//go:build wasip1

package host

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// The collector ends each of its rounds by asking for the time of day. If that happened while the
// host waits for cabi_realloc, where no import may be called, it would end the instance. So it
// runs only where it is told to: at the beginning of a call, and between events.
func init() { debug.SetGCPercent(-1) }

// Most bytes that are allocated between two rounds, unless more than that is in use.
const garbageMax = 8 << 20

var (
	collected uint64 // bytes that had been allocated at the last round
	allowed   uint64 = garbageMax

	samples = []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
)

// Collect lets the collector run, if there is enough for it.
func Collect() {
	metrics.Read(samples[:1])
	allocated := samples[0].Value.Uint64()
	if allocated-collected < allowed {
		return
	}
	runtime.GC()
	metrics.Read(samples)
	collected = samples[0].Value.Uint64()
	allowed = max(garbageMax, samples[1].Value.Uint64())
}
