package command

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
)

// EachFlag returns a flag that can be repeated and can have several values, one per
// line. It calls set with each value, in the order of the command line across flags.
func EachFlag(name, usage string, set func(string) error) cli.Flag {
	return &cli.GenericFlag{Name: name, Usage: usage, Value: each(set)}
}

// each implements cli.Value by calling the function with each line.
type each func(string) error

func (set each) Set(values string) error {
	for value := range strings.SplitSeq(strings.Trim(values, "\n"), "\n") {
		if err := set(value); err != nil {
			return err
		}
	}
	return nil
}
func (each) String() string { return "" }
func (each) Get() any       { return nil }

// WithVariables lets an environment variable set each flag: the prefix and the
// name of the flag.
func WithVariables(flags []cli.Flag, prefix string) {
	for _, f := range flags {
		source := cli.EnvVars(prefix + strings.ToUpper(strings.ReplaceAll(f.Names()[0], "-", "_")))
		switch f := f.(type) {
		case *cli.StringFlag:
			f.Sources = source
		case *cli.BoolFlag:
			f.Sources = source
		case *cli.IntFlag:
			f.Sources = source
		case *cli.DurationFlag:
			f.Sources = source
		case *cli.GenericFlag:
			f.Sources = source
		}
	}
}

// NotEmpty rejects an empty value, such as that of an unset shell variable.
func NotEmpty(value string) error {
	if value == "" {
		return errors.New("must not be empty")
	}
	return nil
}

// AtLeast returns a validator that rejects smaller numbers or shorter durations.
func AtLeast[T int | time.Duration](least T) func(T) error {
	return func(value T) error {
		if value < least {
			return fmt.Errorf("must be at least %v", least)
		}
		return nil
	}
}

// OneOf returns a validator that rejects other values.
func OneOf(values ...string) func(string) error {
	return func(value string) error {
		for _, v := range values {
			if value == v {
				return nil
			}
		}
		return fmt.Errorf("must be %s or %s", strings.Join(values[:len(values)-1], ", "), values[len(values)-1])
	}
}
