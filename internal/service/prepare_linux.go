package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// prepare makes the user that the unit names, if there is none, and lets it read the
// settings where they are at their usual place. What is elsewhere is left as it is.
func prepare(ctx context.Context, p Plan) error {
	gid, err := ownGroup(ctx)
	if err != nil {
		return err
	}
	if folder := filepath.Dir(p.Config); folder == filepath.Dir(DefaultConfig()) {
		return share(folder, gid)
	}
	return nil
}

// ownGroup returns the group of the service's user.
func ownGroup(ctx context.Context) (int, error) {
	_, err := user.Lookup(Name)
	if _, unknown := errors.AsType[user.UnknownUserError](err); unknown {
		add := exec.CommandContext(ctx, "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/var/lib/"+Name, "--shell", "/usr/sbin/nologin", Name)
		if said, err := add.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("the user %s cannot be made: %w: %s", Name, err, strings.TrimSpace(string(said)))
		}
	} else if err != nil {
		return 0, err
	}
	group, err := user.LookupGroup(Name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(group.Gid)
}

// share gives a folder and the files in it to a group, to read. What is put there
// later belongs to the group as well. Links are not followed.
func share(folder string, gid int) error {
	if err := errors.Join(os.Chown(folder, -1, gid), os.Chmod(folder, 0o750|fs.ModeSetgid)); err != nil {
		return err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			continue
		}
		path := filepath.Join(folder, e.Name())
		if err := errors.Join(os.Lchown(path, -1, gid), os.Chmod(path, info.Mode().Perm()|0o040)); err != nil {
			return err
		}
	}
	return nil
}
