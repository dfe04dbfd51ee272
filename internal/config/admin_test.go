package config

import "testing"

func TestAdmin(t *testing.T) {
	for file, want := range map[string]Admin{
		"":                                 {},
		"admin: off":                       {Off: true},
		"admin: false":                     {Off: true},
		"admin: {socket: /run/a.sock}":     {Socket: "/run/a.sock"},
		"admin: {socket: here/admin.sock}": {Socket: "/etc/sallyport/here/admin.sock"},
	} {
		s, err := Parse("/etc/sallyport/sallyport.yaml", []byte(file), Override{})
		if err != nil || s.Admin != want {
			t.Errorf("%q: %+v, %v; want %+v", file, s, err, want)
		}
	}
	s, err := Parse("x.yaml", []byte("admin: {socket: /run/a.sock}"), Override{Admin: "off"})
	if err != nil || !s.Admin.Off {
		t.Errorf("--admin off: %+v, %v", s, err)
	}
}
