package ledger

import (
	"os"
	"path/filepath"
)

// DefaultPath returns where the ledger is if nobody says otherwise: in the folder
// for what a service keeps, of systemd, of root, or of this user. It is empty where
// there is none.
func DefaultPath() string {
	const name = "ledger.db"
	if folders := filepath.SplitList(os.Getenv("STATE_DIRECTORY")); len(folders) > 0 {
		return filepath.Join(folders[0], name)
	}
	if os.Geteuid() == 0 {
		return "/var/lib/sallyport/" + name
	}
	if folder := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(folder) {
		return filepath.Join(folder, "sallyport", name)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "state", "sallyport", name)
}
