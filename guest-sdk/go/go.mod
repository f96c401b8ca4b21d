module sluicebox

go 1.25
