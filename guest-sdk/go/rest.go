package sluicebox

import (
	"fmt"
	"strings"

	"sluicebox/internal/host"
)

// Config reads a setting of the manifest.
func Config(name string) (value string, ok bool) { return host.Config(name) }

// ConfigNames gives the names of all settings, in byte order.
func ConfigNames() []string { return host.ConfigNames() }

// AssetSize is the size of an asset that the manifest grants.
func AssetSize(name string) (size uint64, ok bool) { return host.AssetSize(name) }

// AssetAt reads at most `length` bytes of an asset from `offset` on; fewer at its end.
func AssetAt(name string, offset uint64, length int) []byte {
	return host.AssetRead(name, offset, uint32(max(length, 0)))
}

// assetPiece is how much of an asset is read at once.
const assetPiece = 1 << 20

// Asset reads a whole asset.
func Asset(name string) (bytes []byte, ok bool) {
	size, ok := host.AssetSize(name)
	if !ok {
		return nil, false
	}
	bytes = make([]byte, 0, size)
	for uint64(len(bytes)) < size {
		piece := AssetAt(name, uint64(len(bytes)), assetPiece)
		if len(piece) == 0 {
			break
		}
		bytes = append(bytes, piece...)
	}
	return bytes, true
}

// Level says how much a line of the log matters.
type Level uint8

const (
	// DebugLevel is for who looks for a mistake.
	DebugLevel Level = iota
	// InfoLevel is for who wants to know.
	InfoLevel
	// WarnLevel is for who should look.
	WarnLevel
	// ErrorLevel is for who must look.
	ErrorLevel
)

// Log writes a line to the stage's log.
func Log(level Level, line string) {
	host.Log(uint8(level), strings.ToValidUTF8(line, "\uFFFD"))
}

// Debugf writes a line of level debug.
func Debugf(format string, arguments ...any) { Log(DebugLevel, fmt.Sprintf(format, arguments...)) }

// Infof writes a line of level info.
func Infof(format string, arguments ...any) { Log(InfoLevel, fmt.Sprintf(format, arguments...)) }

// Warnf writes a line of level warn.
func Warnf(format string, arguments ...any) { Log(WarnLevel, fmt.Sprintf(format, arguments...)) }

// Errorf writes a line of level error.
func Errorf(format string, arguments ...any) { Log(ErrorLevel, fmt.Sprintf(format, arguments...)) }

// Count adds to a counter of the stage's own, named [a-z][a-z0-9_]*.
func Count(metric string, delta uint64) { host.MetricCount(metric, delta) }

// Gauge sets a gauge of the stage's own.
func Gauge(metric string, value float64) { host.MetricGauge(metric, value) }
