package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sallyport/sallyport/internal/daemon"
)

func newUser() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Change who may sign in, and their passwords",
		Long: "Change who may sign in: in the users file (--file), where the settings say it is\n" +
			"(--config), or in a ledger (--store). Passwords are kept as argon2id hashes. They are\n" +
			"read from standard input, one line, or asked for on a terminal. Running servers,\n" +
			"all that share a ledger, notice the change within a second.",
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("add, passwd, disable, enable, remove, list, key, join, leave or groups?")}
		},
	}
	var users daemon.Users
	flags := cmd.PersistentFlags()
	flags.StringVarP(&users.File, "file", "f", "users", "the users `FILE`")
	flags.StringVarP(&users.Settings, "config", "c", "", "the settings `FILE` of the server, which says where the users are")
	flags.StringVar(&users.Store, "store", "", "the ledger that has the users: `sqlite:FILE` or postgres://USER@HOST/DATABASE")
	cmd.PersistentPreRunE = func(cmd *cobra.Command, given []string) error { // in the place of the root's
		if err := named(cmd, given); err != nil {
			return err
		}
		said := 0
		for _, flag := range []string{"file", "config", "store"} {
			if cmd.Flags().Changed(flag) {
				said++
			}
		}
		if said > 1 {
			return usageError{errors.New("--file, --config and --store exclude each other: each says where the users are")}
		}
		return nil
	}
	cmd.AddCommand(newUserAdd(&users), newUserPasswd(&users), newUserEnable(&users, false), newUserEnable(&users, true), newUserRemove(&users), newUserList(&users), newUserKey(&users),
		newUserJoin(&users), newUserLeave(&users), newUserGroups(&users))
	return cmd
}

func newUserJoin(users *daemon.Users) *cobra.Command {
	return &cobra.Command{
		Use:   "join NAME GROUP",
		Short: "Put somebody into a group that the ledger has",
		Args:  args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, names []string) error {
			return users.Join(cmd.Context(), names[0], names[1])
		},
	}
}

func newUserLeave(users *daemon.Users) *cobra.Command {
	return &cobra.Command{
		Use:   "leave NAME GROUP",
		Short: "Take somebody out of a group that the ledger has",
		Args:  args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, names []string) error {
			return about(names[0], users, users.Leave(cmd.Context(), names[0], names[1]))
		},
	}
}

func newUserGroups(users *daemon.Users) *cobra.Command {
	return &cobra.Command{
		Use:   "groups",
		Short: "Print the groups that the ledger has, one a line, with their members",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			groups, err := users.Groups(cmd.Context())
			if err != nil {
				return err
			}
			var all []string
			for _, group := range slices.Sorted(maps.Keys(groups)) {
				all = append(all, group+": "+strings.Join(groups[group], " "))
			}
			_, err = io.WriteString(cmd.OutOrStdout(), lines(all))
			return err
		},
	}
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
			if there, err := users.Has(cmd.Context(), name); err != nil || there {
				return about(name, users, cmp.Or(err, daemon.ErrUserExists))
			}
			password, err := readPassword(cmd.InOrStdin(), cmd.ErrOrStderr(), name)
			if err != nil {
				return err
			}
			return about(name, users, users.Add(cmd.Context(), name, password))
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
			if there, err := users.Has(cmd.Context(), name); err != nil || !there {
				return about(name, users, cmp.Or(err, daemon.ErrNoUser))
			}
			password, err := readPassword(cmd.InOrStdin(), cmd.ErrOrStderr(), name)
			if err != nil {
				return err
			}
			return about(name, users, users.SetPassword(cmd.Context(), name, password))
		},
	}
}

func newUserEnable(users *daemon.Users, on bool) *cobra.Command {
	use, short := "disable NAME", "Let a user not sign in any more, and keep the password"
	if on {
		use, short = "enable NAME", "Let a user that was disabled sign in again"
	}
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			return about(names[0], users, users.Enable(cmd.Context(), names[0], on))
		},
	}
}

func newUserRemove(users *daemon.Users) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a user out",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			return about(names[0], users, users.Remove(cmd.Context(), names[0]))
		},
	}
}

func newUserList(users *daemon.Users) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Print the names, one a line",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := users.Names(cmd.Context())
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

// about says whom, and which file or ledger, an error is about.
func about(name string, users *daemon.Users, err error) error {
	if errors.Is(err, daemon.ErrUserExists) || errors.Is(err, daemon.ErrNoUser) || errors.Is(err, daemon.ErrNoMember) || errors.Is(err, daemon.ErrNoKey) {
		return fmt.Errorf("%q in %s: %w", name, users.Where(), err)
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
	if line == "" {
		return "", errors.New("there is no password: write it to standard input")
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
