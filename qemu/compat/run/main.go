// Command run compares programs on dinos with Linux (make compat): see package compat.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"

	"dinos/qemu/compat"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "compat:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("compat", flag.ContinueOnError)
	dinos := flags.String("dinos", "bin/dinos", "the executable whose command run is compared with Linux")
	report := flags.String("report", "qemu/compat/RESULTS.md", "file of results; cases that were the same there must still be")
	cache := flags.String("cache", "bin/compat", "where programs are kept")
	only := flags.String("only", "", "only cases PROGRAM/CASE that match this regular expression")
	repeat := flags.Bool("repeat", false, "run each case twice on Linux first: is it the same there?")
	show := flags.Bool("show", false, "print what Linux does in each case")
	accept := flags.Bool("accept", false, "write the report even if cases have regressed")
	linux := flags.Bool("linux", false, "compare Linux with itself, to test the cases; writes no report")
	if err := flags.Parse(args); err != nil {
		return err
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	programs, err := compat.Programs()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	if *cache, err = filepath.Abs(*cache); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "dinos-compat-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	s := compat.Suite{Builder: &compat.Builder{Dir: *cache, Log: say}, Linux: compat.Linux{}, Repeat: *repeat, Show: *show, Scratch: scratch, Log: say}
	switch d := (compat.Dinos{Path: *dinos}); {
	case *linux:
		s.Other = compat.Linux{}
	case d.Available(ctx):
		s.Other = d
	default:
		say("%s has no command run: only Linux runs the programs", *dinos)
	}
	results, err := s.Run(ctx, programs, match.MatchString)
	if err != nil {
		return err
	}
	if len(results) == 0 {
		return fmt.Errorf("no case matches %q", *only)
	}
	if *linux {
		fmt.Print(compat.Report(results, "Linux"))
		return bad(results)
	}
	before, err := compat.ReadReport(*report)
	if err != nil {
		return err
	}
	text := compat.Report(compat.Merge(before, programs, results), "dinos")
	fmt.Print(text)
	lost := compat.Regressions(before, results)
	for _, r := range lost {
		say("regressed: %s: %s %s", r.ID(), r.Verdict, r.Detail)
	}
	if len(lost) > 0 && !*accept {
		return fmt.Errorf("%d cases were the same as on Linux before and are not now; %s is as it was (-accept changes it)", len(lost), *report)
	}
	if err := os.WriteFile(*report, []byte(text), 0o644); err != nil {
		return err
	}
	return bad(results)
}

// bad complains of cases that say nothing.
func bad(results []compat.Result) error {
	var errs []error
	for _, r := range results {
		if r.Verdict == compat.LinuxFailed || r.Verdict == compat.Unstable {
			errs = append(errs, fmt.Errorf("%s: %s: %s", r.ID(), r.Verdict, r.Detail))
		}
	}
	return errors.Join(errs...)
}
