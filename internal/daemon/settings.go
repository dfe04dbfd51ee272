package daemon

import (
	"errors"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/config"
)

// Source says where the settings come from.
type Source struct {
	File    string // the settings file; empty: the built-in settings
	Listen  string // the address of the only listener, in the place of the file's; empty: the file's
	Admin   string // "off": no admin socket; empty: as the settings say
	Version string // what the server calls itself
}

// fromRoot is the settings file with all of its path; empty: there is none.
func (s Source) fromRoot() string {
	if s.File == "" {
		return ""
	}
	path, err := filepath.Abs(s.File)
	if err != nil {
		return s.File
	}
	return path
}

// SettingsError is a fault, or all of them, of the settings. Its text is meant
// for a person: each fault with its place, the line, and what would be right.
type SettingsError struct{ faults error }

// Error returns the text, of one or more lines.
func (e *SettingsError) Error() string { return e.faults.Error() }

// Unwrap returns what it was made of.
func (e *SettingsError) Unwrap() error { return e.faults }

// Check returns nil for a file that [Open] would take, else a [*SettingsError].
// It opens no socket.
func Check(file string) error {
	s, err := Source{File: file}.load()
	if err != nil {
		return err
	}
	_, ofWays := buildWays(s, nil, nil)
	_, ofSets := openSets(s.Sets, slog.New(slog.DiscardHandler))
	var ofUsers error
	if s.Users.File != "" {
		ofUsers = placed(s.Users.File, access.CheckUsersFile(s.Users.File))
	}
	if err := joinFaults(ofWays, ofSets, ofUsers); err != nil {
		return &SettingsError{err}
	}
	return nil
}

// faultList are the faults of several files, each with its place.
type faultList []error

// Error returns the text of all of them.
func (l faultList) Error() string { return errors.Join(l...).Error() }

// joinFaults returns all faults as one error, nil where there are none.
func joinFaults(errs ...error) error {
	var all faultList
	for _, err := range errs {
		if err != nil {
			all = append(all, faults(err)...)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// faults takes apart what is several faults.
func faults(err error) []error {
	if all, ok := errors.AsType[faultList](err); ok {
		return all
	}
	if placed, ok := errors.AsType[config.Errors](err); ok {
		var all []error
		for _, one := range placed {
			all = append(all, one)
		}
		return all
	}
	return []error{err}
}

// placed shows the faults in the lines of a file as those of the settings are
// shown. No fault is none.
func placed(file string, err error) error {
	if keys, ok := errors.AsType[*access.KeysFaults](err); ok {
		return placed(keys.File, keys.Faults)
	}
	lines, ok := errors.AsType[access.LineFaults](err)
	if !ok {
		return err
	}
	var faults config.Errors
	for _, f := range lines {
		faults = append(faults, &config.Error{
			File: file, Line: f.Line, Column: f.Column, Width: f.Width, Text: f.Text, Problem: f.Problem, Hint: f.Hint,
		})
	}
	return faults
}

// WriteSchema writes the JSON Schema of the settings file.
func WriteSchema(w io.Writer) error {
	text, err := config.Schema()
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

func (s Source) load() (*config.Settings, error) {
	override := config.Override{Listen: s.Listen, Admin: s.Admin}
	var settings *config.Settings
	var err error
	if s.File == "" {
		settings, err = config.Default(override)
	} else {
		settings, err = config.Load(s.File, override)
	}
	if err != nil {
		return nil, &SettingsError{err}
	}
	return settings, nil
}
