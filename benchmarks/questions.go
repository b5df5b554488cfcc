package main

import "context"

// A question is asked of all ways. Each row of the answer has its own target.
type question struct {
	name string
	how  string // how it is measured
	ask  func(context.Context, *bench) ([]*Row, error)
}

// questions are asked in this order.
var questions = []question{
	warmConnect,
	coldPool,
	coldCrowd,
	turnover,
	outage,
}
