package main

import (
	"testing"

	"sluicebox"
	"sluicebox/sluiceboxtest"
)

func TestEachKeyHasACountOfItsOwn(t *testing.T) {
	harness := sluiceboxtest.New(sluicebox.Each(greet))
	harness.Send("ada", "first")
	got := harness.Send("ada", "second").Outputs[0].Text()
	if want := `{"greeting":"hello","count":2}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
