module stream

go 1.25

require sluicebox v0.0.0

replace sluicebox => ../../../guest-sdk/go
