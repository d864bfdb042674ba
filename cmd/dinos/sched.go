package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"dinos/sched"
)

// newSchedCmd serves the scheduler's state as text in files: the state of a rack that was dumped, or one written by hand.
func newSchedCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sched",
		Short: "show and explain placements, check and change policies, on a dumped state",
		Long: `Sched works on the text form of the scheduler's state (sched/README.md): dkernels, processes, placements and the policy in force. A running
rack does not serve it yet.`,
	}
	cmd.AddCommand(newSchedShowCmd(), newSchedSetCmd(), newSchedExplainCmd())
	return cmd
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

func newSchedShowCmd() *cobra.Command {
	var policy string
	cmd := &cobra.Command{
		Use:   "show [STATE]",
		Short: "print a state for people, or with --policy the text of a policy",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
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
			_, err = fmt.Fprint(cmd.OutOrStdout(), s.Show())
			return err
		},
	}
	cmd.Flags().StringVar(&policy, "policy", "", "name of a shipped policy; empty for the one in force")
	return cmd
}

func newSchedSetCmd() *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use:   "set POLICY.sql",
		Short: "check a policy, and with --state put it in force in a dumped state",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readText(cmd, args[0])
			if err != nil {
				return err
			}
			name := strings.TrimSuffix(filepath.Base(args[0]), ".sql")
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
	return cmd
}

func newSchedExplainCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "explain STATE",
		Short: "say where the requests at the end of a state would go and why, or what refuses them",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
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
}
