package window

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"math/bits"

	"sluicebox"
)

// Aggregate says what is made of a window's events: what is kept of one, how what is kept of later
// ones is added, and what the result is. Without Encode and Decode what is kept lies in state as
// JSON.
type Aggregate[In, Kept, Out any] struct {
	First  func(input In) Kept
	Merge  func(kept, later Kept) Kept
	Output func(kept Kept) Out
	// Encode appends what is kept.
	Encode func(bytes []byte, kept Kept) []byte
	// Decode reads all of what Encode wrote.
	Decode func(bytes []byte) (Kept, error)
}

var errUnreadable = errors.New("what is kept cannot be read")

// complete fills in how what is kept lies in state.
func (aggregate Aggregate[In, Kept, Out]) complete() Aggregate[In, Kept, Out] {
	if aggregate.Encode == nil {
		aggregate.Encode = func(bytes []byte, kept Kept) []byte {
			text, err := json.Marshal(kept)
			if err != nil {
				// It reads as nothing: then its event fails.
				return bytes
			}
			return append(bytes, text...)
		}
	}
	if aggregate.Decode == nil {
		aggregate.Decode = func(bytes []byte) (kept Kept, err error) {
			err = json.Unmarshal(bytes, &kept)
			return kept, err
		}
	}
	return aggregate
}

// Anything is what [Count] takes of an event: for `read` of [Run].
func Anything(*sluicebox.Event) (struct{}, error) { return struct{}{}, nil }

// Count is how many events there are.
func Count() Aggregate[struct{}, uint64, uint64] {
	return Aggregate[struct{}, uint64, uint64]{
		First:  func(struct{}) uint64 { return 1 },
		Merge:  func(kept, later uint64) uint64 { return kept + later },
		Output: func(kept uint64) uint64 { return kept },
		Encode: binary.AppendUvarint,
		Decode: whole(func(rest *reader) uint64 { return rest.number() }),
	}
}

// Integer is a whole number that no sum of others is too large for.
type Integer struct{ high, low uint64 }

func integer(value int64) Integer { return Integer{uint64(value >> 63), uint64(value)} }

func (a Integer) plus(b Integer) Integer {
	low, carry := bits.Add64(a.low, b.low, 0)
	high, _ := bits.Add64(a.high, b.high, carry)
	return Integer{high, low}
}

// Big is the number.
func (a Integer) Big() *big.Int {
	number := big.NewInt(int64(a.high))
	return number.Lsh(number, 64).Add(number, new(big.Int).SetUint64(a.low))
}

func (a Integer) append(bytes []byte) []byte {
	return binary.AppendUvarint(binary.AppendVarint(bytes, int64(a.high)), a.low)
}

func (rest *reader) integer() Integer { return Integer{uint64(rest.signed()), rest.number()} }

// Sum is the sum of whole numbers; it is never too large.
func Sum() Aggregate[int64, Integer, *big.Int] {
	return Aggregate[int64, Integer, *big.Int]{
		First:  integer,
		Merge:  Integer.plus,
		Output: Integer.Big,
		Encode: func(bytes []byte, kept Integer) []byte { return kept.append(bytes) },
		Decode: whole(func(rest *reader) Integer { return rest.integer() }),
	}
}

// SumFloat is the sum of numbers.
func SumFloat() Aggregate[float64, float64, float64] {
	return numbers(func(kept, later float64) float64 { return kept + later })
}

// Averaged is a sum of so many.
type Averaged struct {
	sum   Integer
	count uint64
}

// Mean is the mean of whole numbers.
func Mean() Aggregate[int64, Averaged, float64] {
	return Aggregate[int64, Averaged, float64]{
		First: func(value int64) Averaged { return Averaged{integer(value), 1} },
		Merge: func(kept, later Averaged) Averaged {
			return Averaged{kept.sum.plus(later.sum), kept.count + later.count}
		},
		Output: func(kept Averaged) float64 {
			sum, _ := kept.sum.Big().Float64()
			return sum / float64(kept.count)
		},
		Encode: func(bytes []byte, kept Averaged) []byte {
			return binary.AppendUvarint(kept.sum.append(bytes), kept.count)
		},
		Decode: whole(func(rest *reader) Averaged { return Averaged{rest.integer(), rest.number()} }),
	}
}

// Min is the least of something; of equals the first. It is kept as JSON.
func Min[T cmp.Ordered]() Aggregate[T, T, T] {
	return choose(func(kept, later T) bool { return later < kept })
}

// Max is the greatest of something; of equals the first. It is kept as JSON.
func Max[T cmp.Ordered]() Aggregate[T, T, T] {
	return choose(func(kept, later T) bool { return later > kept })
}

func choose[T any](better func(kept, later T) bool) Aggregate[T, T, T] {
	return Aggregate[T, T, T]{
		First: func(value T) T { return value },
		Merge: func(kept, later T) T {
			if better(kept, later) {
				return later
			}
			return kept
		},
		Output: func(kept T) T { return kept },
	}
}

func numbers(merge func(kept, later float64) float64) Aggregate[float64, float64, float64] {
	return Aggregate[float64, float64, float64]{
		First:  func(value float64) float64 { return value },
		Merge:  merge,
		Output: func(kept float64) float64 { return kept },
		Encode: func(bytes []byte, kept float64) []byte {
			return binary.LittleEndian.AppendUint64(bytes, math.Float64bits(kept))
		},
		Decode: func(bytes []byte) (float64, error) {
			if len(bytes) != 8 {
				return 0, errUnreadable
			}
			return math.Float64frombits(binary.LittleEndian.Uint64(bytes)), nil
		},
	}
}

// reader takes numbers off the front of bytes: 7 bits a byte, the sign in the lowest bit.
type reader struct {
	bytes []byte
	bad   bool
}

func (rest *reader) number() uint64 {
	value, length := binary.Uvarint(rest.bytes)
	if length <= 0 {
		rest.bad, rest.bytes = true, nil
		return 0
	}
	rest.bytes = rest.bytes[length:]
	return value
}

func (rest *reader) signed() int64 {
	folded := rest.number()
	return int64(folded>>1) ^ -int64(folded&1)
}

// whole makes of a way to read a value one that takes all bytes.
func whole[T any](read func(*reader) T) func([]byte) (T, error) {
	return func(bytes []byte) (T, error) {
		rest := reader{bytes: bytes}
		value := read(&rest)
		if rest.bad || len(rest.bytes) > 0 {
			return value, errUnreadable
		}
		return value, nil
	}
}
