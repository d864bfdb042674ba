package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/chzyer/readline"
	"github.com/spf13/cobra"

	"dinos/qemu/rack"
)

func newPromptCmd() *cobra.Command {
	ref := rackRef{}
	cmd := &cobra.Command{
		Use:   "prompt",
		Short: "a prompt with the commands about a running rack; commands from standard input if that is no terminal",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := ref.connect()
			if err != nil {
				return err
			}
			_, err = prompt(cmd.Context(), r, cmd.InOrStdin(), cmd.OutOrStdout())
			return err
		},
	}
	ref.bind(cmd)
	return cmd
}

// promptAndDown serves a prompt and ends the rack with it. The rack also ends if this process does.
func promptAndDown(ctx context.Context, r *rack.Remote, in io.Reader, out io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	hold, err := r.Hold(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	defer hold()
	gone, err := prompt(ctx, r, in, out)
	if gone {
		return err
	}
	return errors.Join(err, r.Down(context.WithoutCancel(ctx), false))
}

// errLeave ends the prompt.
var errLeave = errors.New("leave")

// shell is a prompt.
type shell struct {
	rack *rack.Remote
	in   io.Reader
	out  io.Writer
	gone bool // the rack was ended
}

// prompt serves commands until in ends. gone says that one of them has ended the rack. With a terminal, commands that fail are the user's business;
// else the error says that some did.
func prompt(ctx context.Context, r *rack.Remote, in io.Reader, out io.Writer) (gone bool, err error) {
	s := &shell{rack: r, in: in, out: out}
	if isTerminal(in) && isTerminal(out) {
		err = s.interactive(ctx)
	} else {
		err = s.batch(ctx)
	}
	return s.gone, err
}

// batch reads commands from a file or pipe.
func (s *shell) batch(ctx context.Context) error {
	lines, failed := make(chan string), 0
	var scanErr error
	go func() {
		defer close(lines)
		sc := bufio.NewScanner(s.in)
		for sc.Scan() {
			select {
			case lines <- sc.Text():
			case <-ctx.Done():
				return
			}
		}
		scanErr = sc.Err()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case line, ok := <-lines:
			if !ok {
				if scanErr == nil && failed > 0 {
					scanErr = fmt.Errorf("%d commands failed", failed)
				}
				return scanErr
			}
			if strings.TrimSpace(line) != "" {
				fmt.Fprintf(s.out, "%s> %s\n", s.rack.Name, line)
			}
			err := s.line(ctx, line)
			if err == errLeave {
				if failed > 0 {
					return fmt.Errorf("%d commands failed", failed)
				}
				return nil
			}
			if err != nil {
				failed++
				fmt.Fprintln(s.out, "dinos:", err)
			}
		}
	}
}

// interactive reads commands from the terminal.
func (s *shell) interactive(ctx context.Context) error {
	rl, err := readline.NewEx(&readline.Config{
		Prompt: s.rack.Name + "> ", HistoryFile: historyFile(), HistorySearchFold: true, AutoComplete: &completer{s.rack},
		InterruptPrompt: "^C", EOFPrompt: "exit",
	})
	if err != nil {
		return err
	}
	defer rl.Close()
	// What happens meanwhile appears above the line that is being typed.
	fctx, stop := context.WithCancel(ctx)
	defer stop()
	go s.rack.Follow(fctx, func(e rack.Event) { fmt.Fprintf(rl.Stdout(), "[%s] %s\n", e.Time.Format("15:04:05"), e) })
	stopRead := context.AfterFunc(ctx, func() { rl.Close() })
	defer stopRead()
	fmt.Fprintln(s.out, "'help' lists the commands; Ctrl-D leaves.")
	for {
		line, err := rl.Readline()
		switch {
		case errors.Is(err, readline.ErrInterrupt):
			continue // the line is dropped
		case err != nil:
			return nil // the end of the input
		}
		switch err := s.line(ctx, line); {
		case err == errLeave:
			return nil
		case err != nil:
			fmt.Fprintln(s.out, "dinos:", err)
		}
	}
}

// line runs one command.
func (s *shell) line(ctx context.Context, line string) error {
	words, err := splitWords(line)
	if err != nil || len(words) == 0 {
		return err
	}
	root := s.commands()
	if cmd, _, err := root.Find(words); err != nil || cmd == root {
		return runProgram(ctx, s.rack, words, s.in, s.out)
	}
	root.SetArgs(words)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.out)
	err = root.ExecuteContext(ctx)
	if words[0] == "down" && err == nil {
		s.gone = true
		return errLeave
	}
	return err
}

// commands are those of the prompt. They are made anew for each line, since flags keep their values.
func (s *shell) commands() *cobra.Command {
	root := &cobra.Command{Use: "", SilenceErrors: true, SilenceUsage: true, CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true}}
	root.SetHelpTemplate(`{{if .HasAvailableSubCommands}}{{if not .HasParent}}Commands:
{{range .Commands}}{{if .IsAvailableCommand}}  {{rpad .Name 12}} {{.Short}}
{{end}}{{end}}'help COMMAND' tells more.
{{else}}{{.Short}}

{{.UsageString}}{{end}}{{else}}{{or .Long .Short}}

{{.UsageString}}{{end}}`)
	root.AddCommand(newRackCmds(rackRef{name: s.rack.Name, fixed: true})...)
	root.AddCommand(&cobra.Command{Use: "exit", Aliases: []string{"quit"}, Short: "leave the prompt (after 'up -i' that ends the rack)", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return errLeave }})
	root.InitDefaultHelpCmd()
	return root
}

// splitWords splits a line like a shell does: quotes keep spaces, a backslash the next character.
func splitWords(line string) (words []string, err error) {
	var word strings.Builder
	inWord, quote, escaped := false, rune(0), false
	for _, c := range line {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '"' || c == '\'':
			quote, inWord = c, true
		case c == ' ' || c == '\t':
			if inWord {
				words, inWord = append(words, word.String()), false
				word.Reset()
			}
		case c == '#' && !inWord:
			return words, nil
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	switch {
	case quote != 0:
		return nil, fmt.Errorf("%s: the quote %c does not end", line, quote)
	case escaped:
		return nil, fmt.Errorf("%s: nothing follows the last backslash", line)
	case inWord:
		words = append(words, word.String())
	}
	return words, nil
}

// historyFile is where the prompt keeps its history; "" for nowhere. XDG Base Directory Specification, XDG_STATE_HOME.
func historyFile() string {
	dir := os.Getenv("XDG_STATE_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(home, ".local", "state")
	}
	dir = filepath.Join(dir, "dinos")
	if os.MkdirAll(dir, 0o700) != nil {
		return ""
	}
	return filepath.Join(dir, "history")
}

// completer completes commands, kernels and parts of the memory.
type completer struct{ rack *rack.Remote }

// completeWait bounds how long a completion may take.
const completeWait = 500 * time.Millisecond

// Do implements readline.AutoCompleter.
func (c *completer) Do(line []rune, pos int) (ends [][]rune, length int) {
	text := string(line[:pos])
	words := strings.Fields(text)
	last := ""
	if len(words) > 0 && !strings.HasSuffix(text, " ") {
		last = words[len(words)-1]
		words = words[:len(words)-1]
	}
	for _, w := range c.candidates(words) {
		if rest, ok := strings.CutPrefix(w, last); ok {
			if !strings.HasSuffix(w, ":") { // there a number follows
				rest += " "
			}
			ends = append(ends, []rune(rest))
		}
	}
	return ends, len([]rune(last))
}

// candidates are what may follow words.
func (c *completer) candidates(words []string) (list []string) {
	ctx, cancel := context.WithTimeout(context.Background(), completeWait)
	defer cancel()
	at := (&shell{rack: c.rack}).commands()
	at.SetContext(ctx)
	if len(words) > 0 {
		cmd, _, err := at.Find(words)
		if err != nil {
			return nil
		}
		cmd.SetContext(ctx)
		at = cmd
	}
	for _, sub := range at.Commands() {
		if sub.IsAvailableCommand() {
			list = append(list, sub.Name())
		}
	}
	for _, v := range at.ValidArgs {
		if name, _, more := strings.Cut(v, ":"); more { // as in log:N
			v = name + ":"
		}
		list = append(list, v)
	}
	if at.ValidArgsFunction != nil {
		names, _ := at.ValidArgsFunction(at, nil, "")
		for _, n := range names {
			list = append(list, string(n))
		}
	}
	return list
}
