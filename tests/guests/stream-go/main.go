// Sums up the numbers of a stream; what it knows is in a local variable. Emits the sum so far for each
// number, and the whole at the end.
package main

import (
	"fmt"
	"iter"

	"sluicebox"
)

func sum(events iter.Seq[*sluicebox.Event], out *sluicebox.StreamOutput) error {
	var total, count int64
	for event := range events {
		var number int64
		if err := event.JSON(&number); err != nil {
			out.Fail(err)
			continue
		}
		total += number
		count++
		out.EmitText(fmt.Sprint(total))
	}
	out.EmitText(fmt.Sprintf("%d of %d", total, count))
	return nil
}

func init() { sluicebox.Run(sluicebox.Stream(sum)) }

func main() {}
