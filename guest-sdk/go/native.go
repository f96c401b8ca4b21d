//go:build !wasip1

package sluicebox

import "sluicebox/internal/host"

// Instance is an instance of a stage, for the package sluiceboxtest. There is none in a component.
type Instance struct {
	runner runner
	out    Output
}

// NewInstance makes an instance.
func NewInstance(stage Stage) *Instance { return &Instance{runner: stage.start()} }

// Undoes says whether what is done for an event that fails is taken back.
func (instance *Instance) Undoes() bool { return instance.runner.undoes() }

// Failed is an event that failed, by its index.
type Failed struct {
	Event int
	Err   error
}

// Handle runs a frame with a host.
func (instance *Instance) Handle(memory *host.Memory, frame []byte) []Failed {
	before := host.Current
	host.Current = memory
	defer func() { host.Current = before }()
	var all []Failed
	for _, one := range call(instance.runner, &instance.out, frame) {
		all = append(all, Failed{int(one.event), one.err})
	}
	return all
}

// EventsOf reads the events of a frame.
func EventsOf(frame []byte) []*Event { return events(frame) }
