package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"dinos/sched"
)

// newSchedCmd serves the scheduler's state: that of a running rack, or text in files, which was dumped from one or written by hand.
func newSchedCmd(ref rackRef) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sched",
		Short: "show and explain placements, check and change policies, of a running rack or on a dumped state",
		Long: `Sched works on a running rack, or on the text form of the scheduler's state (sched/README.md) in a file: dkernels, processes, placements and
the policy in force.`,
	}
	cmd.AddCommand(newSchedShowCmd(ref), newSchedSetCmd(ref), newSchedExplainCmd(ref))
	return cmd
}

// askScheduler prints what the ckernel of a rack answers.
func askScheduler(cmd *cobra.Command, ask func(context.Context) (string, error)) error {
	ctx, stop := interruptible(cmd)
	defer stop()
	answer, err := ask(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.TrimRight(answer, "\n"))
	return err
}

// readText reads a small text file, or standard input for "-".
func readText(cmd *cobra.Command, path string) (string, error) {
	if path == "-" {
		b, err := io.ReadAll(cmd.InOrStdin())
		return string(b), err
	}
	b, err := os.ReadFile(path)
	return string(b), err
}

func newSchedShowCmd(ref rackRef) *cobra.Command {
	var policy string
	var text bool
	cmd := &cobra.Command{
		Use:   "show [STATE]",
		Short: "print the state of a running rack, or one in a file, or with --policy the text of a policy",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				r, err := ref.connectIfAny()
				if err != nil {
					return err
				}
				what := "" // the state, for people
				switch {
				case cmd.Flags().Changed("policy"):
					what = cmp.Or(policy, "policy")
				case text:
					what = "dump"
				}
				if r != nil {
					return askScheduler(cmd, func(ctx context.Context) (string, error) { return r.SchedShow(ctx, what) })
				}
			}
			s, err := sched.New(sched.Options{})
			if err != nil {
				return err
			}
			if len(args) == 1 {
				text, err := readText(cmd, args[0])
				if err != nil {
					return err
				}
				if s, err = sched.Load(text); err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
			}
			if cmd.Flags().Changed("policy") {
				text, err := s.ShowPolicy(policy)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.TrimRight(text, "\n"))
				return err
			}
			show := s.Show
			if text {
				show = s.Dump
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), show())
			return err
		},
	}
	cmd.Flags().BoolVar(&text, "text", false, "as text that 'sched show', 'set' and 'explain' read")
	ref.bind(cmd)
	cmd.Flags().StringVar(&policy, "policy", "", "name of a shipped policy; empty for the one in force")
	return cmd
}

func newSchedSetCmd(ref rackRef) *cobra.Command {
	var state string
	var check bool
	cmd := &cobra.Command{
		Use:   "set POLICY.sql|NAME",
		Short: "check a policy and put it in force, in a running rack or with --state in a dumped state",
		Long: `Set checks a policy and puts it in force in the running rack; a name is that of a policy that ships with dinos. With --state it does so
in a state in a file, with --check nowhere; that is also what happens if no rack runs.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readText(cmd, args[0])
			if errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(args[0], ".sql") && state == "" && !check {
				if r, rerr := ref.connectIfAny(); r != nil && rerr == nil { // it has policies of its own
					return askScheduler(cmd, func(ctx context.Context) (string, error) { return r.SchedSet(ctx, args[0], "") })
				}
			}
			if err != nil {
				return err
			}
			name := strings.TrimSuffix(filepath.Base(args[0]), ".sql")
			if state == "" && !check {
				r, err := ref.connectIfAny()
				if err != nil {
					return err
				}
				if r != nil {
					return askScheduler(cmd, func(ctx context.Context) (string, error) { return r.SchedSet(ctx, name, text) })
				}
			}
			if state == "" {
				p, err := sched.CheckPolicy(name, text)
				if err != nil {
					return err
				}
				_, err = fmt.Fprint(cmd.OutOrStdout(), p.Describe())
				return err
			}
			st, err := readText(cmd, state)
			if err != nil {
				return err
			}
			s, err := sched.Load(st)
			if err != nil {
				return fmt.Errorf("%s: %w", state, err)
			}
			said, err := s.Set(name, text)
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.ErrOrStderr(), said)
			_, err = fmt.Fprint(cmd.OutOrStdout(), s.Dump())
			return err
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "file with a state; the new state goes to standard output")
	cmd.Flags().BoolVar(&check, "check", false, "only check the policy")
	cmd.MarkFlagsMutuallyExclusive("state", "check")
	ref.bind(cmd)
	return cmd
}

func newSchedExplainCmd(ref rackRef) *cobra.Command {
	var requests string
	cmd := &cobra.Command{
		Use:   "explain [STATE]",
		Short: "say where requests would go and why, or what refuses them",
		Long: `Explain says where the requests at the end of a state in a file would go. Without a file it asks the running rack about the requests in
--requests, or about what waits there now.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				r, err := ref.connect()
				if err != nil {
					return fmt.Errorf("without the file of a state a running rack is asked: %w", err)
				}
				text := ""
				if requests != "" {
					if text, err = readText(cmd, requests); err != nil {
						return err
					}
				}
				return askScheduler(cmd, func(ctx context.Context) (string, error) { return r.SchedExplain(ctx, text) })
			}
			if requests != "" {
				return errors.New("--requests is for a running rack; requests about a state stand at its end")
			}
			text, err := readText(cmd, args[0])
			if err != nil {
				return err
			}
			said, err := sched.ExplainFile(text)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), said)
			return err
		},
	}
	cmd.Flags().StringVar(&requests, "requests", "", `file with requests for a running rack; "-" is standard input`)
	ref.bind(cmd)
	return cmd
}
