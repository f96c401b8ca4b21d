// Greets each key, and says how often it has come.
package main

import "sluicebox"

type greeting struct {
	Greeting string `json:"greeting"`
	Count    int64  `json:"count"`
}

func greet(event *sluicebox.Event, out *sluicebox.Output) error {
	count, err := event.Add("count", 1)
	if err != nil {
		return err
	}
	out.EmitJSON(event, greeting{"hello", count})
	return nil
}

func init() { sluicebox.Run(sluicebox.Each(greet)) }

func main() {}
