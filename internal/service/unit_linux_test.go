package service

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// systemd runs systemd's own checks.
func systemd(t *testing.T, args ...string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("it needs systemd's tools")
	}
	said, err := exec.CommandContext(t.Context(), "systemd-analyze", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, said)
	}
	return string(said)
}

// written writes units into a folder; the program that they run is there.
func written(t *testing.T, units map[string]string) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range units {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// TestUnit: systemd has nothing against it, and finds it well guarded.
func TestUnit(t *testing.T) {
	p := Plan{Program: "/bin/true", Config: "/etc/sallyport/sallyport.yaml"}
	unit := written(t, map[string]string{"sallyport.service": p.Unit()})
	if said := systemd(t, append([]string{"verify", "--recursive-errors=no"}, unit...)...); said != "" {
		t.Errorf("verify says %s", said)
	}
	said := systemd(t, "security", "--offline=yes", "--no-pager", unit[0])
	exposure := regexp.MustCompile(`Overall exposure level for sallyport\.service: ([0-9.]+)`).FindStringSubmatch(said)
	if exposure == nil {
		t.Fatalf("security says %s", said)
	}
	if level, err := strconv.ParseFloat(exposure[1], 64); err != nil || level >= 2 {
		t.Errorf("the exposure is %s, want less than 2.0:\n%s", exposure[1], said)
	}
}

// TestUnitSays what the manual promises.
func TestUnitSays(t *testing.T) {
	text := Plan{Program: "/opt/sallyport/bin/sallyport", Config: "/etc/sallyport/gw.yaml"}.Unit()
	for _, line := range []string{
		"Type=notify", "WatchdogSec=30", "RestartPreventExitStatus=78", "LimitNOFILE=524288",
		"ExecStart=/opt/sallyport/bin/sallyport serve --config /etc/sallyport/gw.yaml",
		"ExecReload=/opt/sallyport/bin/sallyport reload --config /etc/sallyport/gw.yaml",
		"CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "AmbientCapabilities=CAP_NET_BIND_SERVICE",
		"User=sallyport", "ProtectSystem=strict", "StateDirectory=sallyport", "LogsDirectory=sallyport", "RuntimeDirectory=sallyport",
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the unit has no line %s", line)
		}
	}
}

// TestSocketUnit: the unit for sockets in the manual is one, beside the service.
func TestSocketUnit(t *testing.T) {
	manual, err := os.ReadFile("../../docs/service.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?ms)^```ini\n(.*?)^```$").FindSubmatch(manual)
	if found == nil {
		t.Fatal("the manual has no unit for sockets")
	}
	p := Plan{Program: "/bin/true", Config: "/etc/sallyport/sallyport.yaml"}
	units := written(t, map[string]string{"sallyport.service": p.Unit(), "sallyport.socket": string(found[1])})
	if said := systemd(t, append([]string{"verify", "--recursive-errors=no"}, units...)...); said != "" {
		t.Errorf("verify says %s", said)
	}
}

func TestPlan(t *testing.T) {
	good := Plan{Program: "/usr/local/bin/sallyport", Config: "/etc/sallyport/sallyport.yaml"}
	if err := good.check(); err != nil {
		t.Errorf("%v", err)
	}
	for _, path := range []string{"sallyport", "/etc/a b", "/etc/x;reboot", "/etc/$(id)", "/etc/%n", "/etc/a\nUser=root", "/home/alice/x", "/root/x", "/tmp/x"} {
		for _, p := range []Plan{{path, good.Config}, {good.Program, path}} {
			if p.check() == nil {
				t.Errorf("%+v is taken", p)
			}
		}
	}
}

// TestShare gives the files of a folder to a group, and no others.
func TestShare(t *testing.T) {
	if testing.Short() {
		t.Skip("only root can give files away")
	}
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	users := filepath.Join(dir, "users")
	for _, file := range []string{users, outside} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	const gid = 54321
	if err := share(dir, gid); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{dir: "dgrwxr-x--- 54321", users: "-rw-r----- 54321", outside: "-rw------- 0"} {
		if got := modeAndGroup(t, path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func modeAndGroup(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().String() + " " + strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Gid))
}
