package config

import (
	"reflect"
	"testing"
)

func TestAdmin(t *testing.T) {
	for file, want := range map[string]Admin{
		"":                                 {},
		"admin: off":                       {Off: true},
		"admin: false":                     {Off: true},
		"admin: {socket: /run/a.sock}":     {Socket: "/run/a.sock"},
		"admin: {socket: here/admin.sock}": {Socket: "/etc/sallyport/here/admin.sock"},
		"admin: {listen: off}":             {Listen: "off"},
		"admin: {listen: 'localhost:99', file: who, hosts: [GW.example], viewers: carol}": {
			Listen: "localhost:99", File: "/etc/sallyport/who", Hosts: []string{"gw.example"}, Viewers: []string{"carol"},
		},
		"admin: {metrics: open, metrics_users: 100}": {OpenMetrics: true, MetricsUsers: 100},
		"admin: {metrics: token}":                    {},
		"admin: {listen: ':1088', tls: {certificate: c.pem, key: /k.pem}}": {
			Listen: ":1088", TLS: TLS{Certificate: "/etc/sallyport/c.pem", Key: "/k.pem"},
		},
	} {
		s, err := Parse("/etc/sallyport/sallyport.yaml", []byte(file), Override{})
		if err != nil || !reflect.DeepEqual(s.Admin, want) {
			t.Errorf("%q: %+v, %v; want %+v", file, s, err, want)
		}
	}
	s, err := Parse("x.yaml", []byte("admin: {socket: /run/a.sock}"), Override{Admin: "off"})
	if err != nil || !s.Admin.Off {
		t.Errorf("--admin off: %+v, %v", s, err)
	}
	s, err = Parse("x.yaml", []byte("admin: off"), Override{Admin: "[::1]:99"})
	if want := (Admin{Listen: "[::1]:99"}); err != nil || !reflect.DeepEqual(s.Admin, want) {
		t.Errorf("--admin [::1]:99: %+v, %v; want %+v", s, err, want)
	}
}
