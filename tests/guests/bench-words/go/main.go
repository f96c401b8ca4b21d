// For the benches: counts each word of an event's payload in the state of its key, and emits the new
// count of each as 8 bytes; one call of the host for all of a call.
package main

import (
	"encoding/binary"
	"strings"

	"sluicebox"
)

func words(events []*sluicebox.Event, out *sluicebox.Output) error {
	var batch sluicebox.Batch
	var causes []*sluicebox.Event
	for _, event := range events {
		text, err := event.Text()
		if err != nil {
			out.Fail(event, err)
			continue
		}
		for word := range strings.SplitSeq(text, " ") {
			batch.Add(event, word, 1)
			causes = append(causes, event)
		}
	}
	var bytes [8]byte
	for i, reply := range batch.Run() {
		count, err := reply.Number()
		if err != nil {
			out.Fail(causes[i], err)
			continue
		}
		binary.LittleEndian.PutUint64(bytes[:], uint64(count))
		out.Emit(causes[i], bytes[:])
	}
	return nil
}

func init() { sluicebox.Run(sluicebox.All(words)) }

func main() {}
