package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"
)

// eachFlag is a flag that can be repeated. Its values are passed to set in the
// order of the command line, across flags.
func eachFlag(name, usage string, set func(string) error) cli.Flag {
	return &cli.GenericFlag{Name: name, Usage: usage, Value: each(set)}
}

// each is a cli.Value.
type each func(string) error

func (set each) Set(value string) error { return set(value) }
func (each) String() string             { return "" }
func (each) Get() any                   { return nil }

// notEmpty rejects a value that comes from a variable that is not set.
func notEmpty(value string) error {
	if value == "" {
		return errors.New("must not be empty")
	}
	return nil
}

// atLeast rejects shorter durations.
func atLeast(least time.Duration) func(time.Duration) error {
	return func(d time.Duration) error {
		if d < least {
			return fmt.Errorf("must be at least %s", least)
		}
		return nil
	}
}
