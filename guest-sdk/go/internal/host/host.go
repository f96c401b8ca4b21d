package host

// Entry is a slot and what it holds.
type Entry struct {
	Slot  string
	Value []byte
}
