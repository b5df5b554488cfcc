package main

import "context"

// A question is a measurement of all ways. Each row of the result has its own target.
type question struct {
	name string
	how  string // how it is measured
	ask  func(context.Context, *bench) ([]*Row, error)
}

// questions are measured in this order.
var questions = []question{
	warmConnect,
	coldPool,
	coldCrowd,
	replacement,
	outage,
}
