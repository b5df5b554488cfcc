package main

import "context"

// A question is asked of all ways; every row of its answer has a target of its
// own.
type question struct {
	name string
	how  string // it is measured
	ask  func(context.Context, *bench) ([]*Row, error)
}

// questions are all that is asked, in this order.
var questions = []question{
	tokenStep,
	warmConnect,
	coldPool,
	coldCrowd,
	turnover,
	outage,
	manyConnectors,
	startUp,
	imports,
}
