package config

import (
	"net/netip"
	"reflect"
	"testing"
)

func TestPAC(t *testing.T) {
	for file, want := range map[string]PAC{
		"":                       {},
		"pac: off":               {Off: true},
		"pac: {direct: []}":      {Written: true},
		"pac: {direct: private}": {Written: true, Private: true},
		"pac: {direct: ['*.Corp.example', host.example., 192.0.2.0/24, private]}": {
			Written: true, Private: true,
			Direct: []Target{{Name: "corp.example", Suffix: true}, {Name: "host.example"}, {Prefix: netip.MustParsePrefix("192.0.2.0/24")}},
		},
	} {
		s, err := Parse("x.yaml", []byte(file), Override{})
		if err != nil || !reflect.DeepEqual(s.PAC, want) {
			t.Errorf("%q: %+v, %v; want %+v", file, s, err, want)
		}
	}
}
