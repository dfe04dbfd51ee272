package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func newInit() *cobra.Command {
	var output string
	var force bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write settings to begin with, after four questions",
		Long: "Ask four questions (who, from where, to where, with passwords or not) and write a\n" +
			"settings file with comments that 'sallyport check' has nothing against. A file that\n" +
			"is there already stays as it is, unless --force is given. The answers are lines of\n" +
			"standard input; an empty one takes what is in brackets.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := os.Lstat(output); err == nil && !force {
				return fmt.Errorf("%s is there already: --force replaces it, --output FILE writes another", output)
			}
			d := dialogue{in: bufio.NewReader(io.LimitReader(cmd.InOrStdin(), maxAnswers)), out: cmd.ErrOrStderr()}
			a, err := d.ask()
			if err != nil {
				return err
			}
			if err := a.write(output, force); err != nil {
				return err
			}
			a.sayNext(cmd.OutOrStdout(), output)
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "sallyport.yaml", "write the settings to `FILE`")
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that is there already")
	return cmd
}

// Bounds of a dialogue.
const (
	maxAnswers = 64 << 10 // bytes of all answers
	maxTries   = 5        // at one question
)

// dialogue asks a person.
type dialogue struct {
	in  *bufio.Reader
	out io.Writer
}

var errNoAnswer = errors.New("the answers ended before the questions did: nothing was written")

// ask asks all questions. An answer that settings cannot have is said to be one, and
// asked for again.
func (d *dialogue) ask() (answers, error) {
	a := answers{from: []string{"loopback"}, to: []string{"internet"}}
	for _, q := range []struct {
		text, usual string
		take        func(answer string) error
	}{
		{"Who may use the proxy? Names with commas between, or anybody", "anybody", a.takeWho},
		{"From where? Networks such as 192.168.1.0/24, or loopback, private, any", "loopback", a.takeFrom},
		{"To where? internet, private, any, networks, or names such as *.example.com", "internet", a.takeTo},
		{"Do they sign in with a password? yes or no", "", a.takePasswords},
	} {
		if err := d.question(q.text, cmp.Or(q.usual, a.usualPasswords()), q.take, a.check); err != nil {
			return a, err
		}
	}
	return a, nil
}

// question asks one, until its answer is taken and the settings with it have no fault.
func (d *dialogue) question(text, usual string, take func(string) error, check func() error) error {
	for range maxTries {
		fmt.Fprintf(d.out, "%s [%s]: ", text, usual)
		line, err := d.in.ReadString('\n')
		if err != nil && (line == "" || !errors.Is(err, io.EOF)) {
			fmt.Fprintln(d.out)
			return errNoAnswer
		}
		err = take(cmp.Or(strings.TrimSpace(line), usual))
		if err == nil {
			err = check()
		}
		if err == nil {
			return nil
		}
		fmt.Fprintln(d.out, err)
	}
	return errors.New("no answer was one that settings can have: nothing was written")
}

// write writes the settings to a file, and makes the users file beside it if they
// name one. It replaces the settings only with force, and a users file never.
func (a *answers) write(output string, force bool) error {
	if err := os.MkdirAll(filepath.Dir(output), 0o750); err != nil {
		return err
	}
	if a.passwords {
		err := create(filepath.Join(filepath.Dir(output), usersName), "")
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if !force {
		return create(output, a.settings())
	}
	next := output + ".new"
	if err := create(next, a.settings()); err != nil {
		return err
	}
	return os.Rename(next, output)
}

// create writes a file that is not there yet. Where it cannot be written there is none: one
// without a word would be settings, too.
func create(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// sayNext says what to do with what was written.
func (a *answers) sayNext(out io.Writer, output string) {
	fmt.Fprintf(out, "%s is written. Next:\n", output)
	if a.passwords {
		names := a.who
		if len(names) == 0 {
			names = []string{"NAME"}
		}
		for _, name := range names {
			fmt.Fprintf(out, "  sallyport user add %s --file %s\n", name, filepath.Join(filepath.Dir(output), usersName))
		}
	}
	fmt.Fprintf(out, "  sallyport serve --config %s\n", output)
}
