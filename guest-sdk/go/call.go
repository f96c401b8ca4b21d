package sluicebox

// instance is the stage of this instance, made by its first call.
var instance struct {
	runner runner
	out    Output
}

// handle runs the registered stage over a frame, and gives the events that failed.
func handle(frame []byte) []failed {
	if instance.runner == nil {
		if registered.start == nil {
			panic("sluicebox: no stage; call sluicebox.Run from an init function")
		}
		instance.runner = registered.start()
	}
	return call(instance.runner, &instance.out, frame)
}

func call(runner runner, out *Output, frame []byte) []failed {
	calls++
	runner.run(events(frame), out)
	out.flush()
	failures := out.failures
	out.failures = out.failures[:0]
	return failures
}
