package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/daemon"
)

// usersName is the users file beside the settings that init writes.
const usersName = "users"

// answers are what a person has said.
type answers struct {
	who       []string // empty: anybody
	from, to  []string // as the settings have them
	passwords bool
}

var (
	errNoName   = errors.New("there is no name in it; write names with commas between, or anybody")
	errNoPlace  = errors.New("there is nothing in it; write a list with commas between")
	errYesNo    = errors.New("write yes or no")
	errOpenAnys = errors.New("without passwords anybody on the Internet could use the proxy, and would: write yes, or begin anew with networks")
)

// list takes an answer apart at its commas.
func list(answer string) []string {
	var all []string
	for one := range strings.SplitSeq(answer, ",") {
		if one = strings.TrimSpace(one); one != "" && !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}

func (a *answers) takeWho(answer string) error {
	a.who = list(answer)
	switch {
	case len(a.who) == 0:
		return errNoName
	case len(a.who) == 1 && (a.who[0] == "anybody" || a.who[0] == "any"):
		a.who = nil
	}
	return nil
}

func (a *answers) takeFrom(answer string) error {
	if a.from = list(answer); len(a.from) == 0 {
		return errNoPlace
	}
	a.passwords = a.public() // until that is asked
	return nil
}

func (a *answers) takeTo(answer string) error {
	if a.to = list(answer); len(a.to) == 0 {
		return errNoPlace
	}
	return nil
}

func (a *answers) takePasswords(answer string) error {
	switch strings.ToLower(answer) {
	case "yes", "y":
		a.passwords = true
	case "no", "n":
		if a.public() {
			return errOpenAnys
		}
		a.passwords = false
	default:
		return errYesNo
	}
	return nil
}

// public reports whether clients may come from anywhere.
func (a *answers) public() bool {
	return slices.Contains(a.from, "any") || slices.Contains(a.from, "internet")
}

// usualPasswords is what most people want after the other answers.
func (a *answers) usualPasswords() string {
	if len(a.who) > 0 || a.public() {
		return "yes"
	}
	return "no"
}

// check returns what `sallyport check` has against the settings. It looks at them in
// a folder of their own.
func (a *answers) check() error {
	dir, err := os.MkdirTemp("", "sallyport-init-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // nobody would be helped by hearing of it
	file := filepath.Join(dir, "sallyport.yaml")
	if err := errors.Join(create(filepath.Join(dir, usersName), ""), create(file, a.settings())); err != nil {
		return err
	}
	if err := daemon.Check(file); err != nil {
		text := err.Error()
		return errors.New(strings.ReplaceAll(text, dir+string(filepath.Separator), ""))
	}
	return nil
}

// settings are the answers as a settings file.
func (a *answers) settings() string {
	var b strings.Builder
	b.WriteString(`# The settings of Sallyport, as ` + "`sallyport init`" + ` writes them.
#
#     sallyport check FILE     silence, or every fault of a file with its place
#     sallyport reload         puts changes in force in a running server; nobody is cut
#                              off but those whose right is gone
#
# docs/settings.md says what else can stand here; ` + "`sallyport schema`" + ` helps editors.

# Where clients come to. The one port speaks SOCKS 4, 4a and 5, and HTTP.
listeners:
  - name: main
    listen: ` + a.listen() + "\n")
	if a.passwords {
		b.WriteString(`
# Who has a password: ` + "`sallyport user add NAME --file " + usersName + "`" + `. Changes hold at once.
users: {file: ` + usersName + `}
`)
	}
	b.WriteString(`
# The first rule that matches decides; what no rule allows is denied. Why a request
# was refused, and what a rule had against it, ` + "`sallyport explain`" + ` says.
rules:
  - allow: who may
    from: ` + quoted(a.from) + `          # where clients are
` + a.identity() + `    to: ` + quoted(a.to) + `          # where they may go
`)
	return b.String()
}

// listen is the address that lets those in who may, and no others.
func (a *answers) listen() string {
	if slices.Equal(a.from, []string{"loopback"}) {
		return "127.0.0.1:1080          # this machine only; \":1080\" is every address of it"
	}
	return `":1080"          # every address of this machine; better the one that clients use, 192.0.2.1:1080`
}

// identity is what the rule asks for about users.
func (a *answers) identity() string {
	switch {
	case len(a.who) == 0 && a.passwords:
		return "    users: any          # everybody in the users file\n    proof: password\n"
	case len(a.who) == 0:
		return ""
	case a.passwords:
		return "    users: " + quoted(a.who) + "\n    proof: password\n"
	}
	return "    users: " + quoted(a.who) + "\n    proof: ident          # the identd of the client's machine must say who it is\n"
}

// quoted writes a list so that nothing in it means anything to YAML.
func quoted(all []string) string {
	text, err := json.Marshal(all)
	if err != nil {
		return "[]" // strings can always be written
	}
	return string(text)
}
