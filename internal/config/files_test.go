package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Names of files start at the settings file's folder, and lead somewhere.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	settings := filepath.Join(dir, "sallyport.yaml")
	for _, name := range []string{"users", "gw.pem", "gw.key", "ca.pem"} {
		write(name, "")
	}
	write("sallyport.yaml", "listeners: {listen: 127.0.0.1:0, tls: {certificate: gw.pem, key: gw.key, client_ca: ./ca.pem}}\nusers: {file: users}\n")
	s, err := Load(settings, Override{})
	if err != nil {
		t.Fatal(err)
	}
	want := TLS{Certificate: filepath.Join(dir, "gw.pem"), Key: filepath.Join(dir, "gw.key"), ClientCA: filepath.Join(dir, "ca.pem")}
	if got := s.Listeners[0].TLS; got != want {
		t.Errorf("TLS %+v, want %+v", got, want)
	}
	if want := filepath.Join(dir, "users"); s.Users.File != want {
		t.Errorf("users in %s, want %s", s.Users.File, want)
	}

	write("sallyport.yaml", "listeners: {listen: 127.0.0.1:0, tls: {certificate: gw.pem, key: none.key, client_ca: .}}\nusers: {file: nobody}\n")
	_, err = Load(settings, Override{})
	if err == nil {
		t.Fatal("files that do not exist were taken")
	}
	for _, part := range []string{
		":1:66: the file \"" + filepath.Join(dir, "none.key") + "\" cannot be read: no such file or directory\n",
		":1:87: the file \"" + dir + "\" cannot be read: it is a folder\n",
		":2:15: the file \"" + filepath.Join(dir, "nobody") + "\" cannot be read: no such file or directory\n",
		"`sallyport user add NAME --file FILE` makes it",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("it does not say %q:\n%v", part, err)
		}
	}
}
