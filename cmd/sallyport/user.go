package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sallyport/sallyport/internal/daemon"
)

func newUser() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Change the users file: who may sign in, and their passwords",
		Long: "Change the users file that the settings name: `users: {file: users}`. Passwords\n" +
			"are kept as argon2id hashes. They are read from standard input, one line, or\n" +
			"asked for on a terminal. A running server notices the change within a second.",
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error { return usageError{errors.New("add, passwd, remove or list?")} },
	}
	var users daemon.Users
	cmd.PersistentFlags().StringVarP(&users.Path, "file", "f", "users", "the users `FILE`")
	cmd.AddCommand(newUserAdd(&users), newUserPasswd(&users), newUserRemove(&users), newUserList(&users))
	return cmd
}

func newUserAdd(users *daemon.Users) *cobra.Command {
	return &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user; the file is made if there is none",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			name := names[0]
			if err := daemon.CheckUserName(name); err != nil {
				return usageError{err}
			}
			if there, err := users.Has(name); err != nil || there {
				return about(name, users, cmp.Or(err, daemon.ErrUserExists))
			}
			password, err := readPassword(cmd.InOrStdin(), cmd.ErrOrStderr(), name)
			if err != nil {
				return err
			}
			return about(name, users, users.Add(name, password))
		},
	}
}

func newUserPasswd(users *daemon.Users) *cobra.Command {
	return &cobra.Command{
		Use:   "passwd NAME",
		Short: "Set another password",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			name := names[0]
			if there, err := users.Has(name); err != nil || !there {
				return about(name, users, cmp.Or(err, daemon.ErrNoUser))
			}
			password, err := readPassword(cmd.InOrStdin(), cmd.ErrOrStderr(), name)
			if err != nil {
				return err
			}
			return about(name, users, users.SetPassword(name, password))
		},
	}
}

func newUserRemove(users *daemon.Users) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a user out",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, names []string) error {
			return about(names[0], users, users.Remove(names[0]))
		},
	}
}

func newUserList(users *daemon.Users) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Print the names, one a line",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := users.Names()
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), lines(names))
			return err
		},
	}
}

func lines(of []string) string {
	var b strings.Builder
	for _, line := range of {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// about says whom, and which file, an error is about.
func about(name string, users *daemon.Users, err error) error {
	if errors.Is(err, daemon.ErrUserExists) || errors.Is(err, daemon.ErrNoUser) {
		return fmt.Errorf("%q in %s: %w", name, users.Path, err)
	}
	return err
}

var errTypedTwice = errors.New("the two passwords are not the same; nothing was changed")

// readPassword asks for a password twice where in is a terminal, and shows
// nothing of it; else it reads one line.
func readPassword(in io.Reader, prompts io.Writer, name string) (string, error) {
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		first, err := askHidden(f, prompts, "Password for "+name+": ")
		if err != nil {
			return "", err
		}
		again, err := askHidden(f, prompts, "The same again: ")
		if err == nil && first != again {
			err = errTypedTwice
		}
		return first, err
	}
	const most = 4096 // bytes; far over what is taken
	r := bufio.NewReader(io.LimitReader(in, most))
	line, err := r.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if _, err := r.ReadByte(); err == nil {
		return "", errors.New("standard input holds more than one line")
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}

// askHidden reads a line from a terminal that shows nothing meanwhile. The
// terminal is put right again also when Ctrl-C ends the wait.
func askHidden(terminal *os.File, prompts io.Writer, prompt string) (string, error) {
	state, err := term.GetState(int(terminal.Fd()))
	if err != nil {
		return "", err
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	defer signal.Stop(interrupted)
	type answer struct {
		line []byte
		err  error
	}
	read := make(chan answer, 1)
	fmt.Fprint(prompts, prompt)
	go func() {
		line, err := term.ReadPassword(int(terminal.Fd()))
		read <- answer{line, err}
	}()
	select {
	case got := <-read:
		fmt.Fprintln(prompts)
		return string(got.line), got.err
	case <-interrupted: // the reader is left behind: the program ends
		fmt.Fprintln(prompts)
		return "", cmp.Or(term.Restore(int(terminal.Fd()), state), errors.New("interrupted; nothing was changed"))
	}
}
