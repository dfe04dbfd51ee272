package daemon

import (
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
	if _, err := buildWays(s, nil, nil); err != nil {
		return err
	}
	if s.Users.File == "" {
		return nil
	}
	if err := access.CheckUsersFile(s.Users.File); err != nil {
		return &SettingsError{err}
	}
	return nil
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
