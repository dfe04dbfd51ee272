//go:build amd64 || arm64

package intercept

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
)

// Programs that look names up by themselves (Go's, musl's) first ask for a name below the
// domains that resolv.conf has, unless it has enough dots: of api.example.com as many as
// the options of a Kubernetes pod say are not enough. As only the proxy knows what there is,
// they are given an address for whatever they ask first. So what they would have asked next
// is tried where the proxy does not find that.

// resolverFile says how names are looked up (resolv.conf(5)).
const resolverFile = "/etc/resolv.conf"

// search is how it has names completed.
type search struct {
	domains []string // in their order, in lower case
	dots    int      // names with as many are asked for as they are first
}

// readSearch reads the file. Without it, names below the domain of this host come first.
func readSearch(file string) search {
	host, _ := os.Hostname() // none: no domain
	_, domain, _ := strings.Cut(host, ".")
	s := search{dots: 1}
	s.complete([]string{domain})
	text, err := os.Open(file)
	if err != nil {
		return s
	}
	defer text.Close()
	const most = 1 << 16 // bytes
	for lines := bufio.NewScanner(io.LimitReader(text, most)); lines.Scan(); {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) < 2:
		case words[0] == "search":
			s.complete(words[1:])
		case words[0] == "domain":
			s.complete(words[1:2])
		case words[0] == "options":
			s.set(words[1:])
		}
	}
	return s
}

// complete puts other domains in the place of those that there are.
func (s *search) complete(domains []string) {
	const most = 16 // each is a question to the proxy
	s.domains = nil
	for _, d := range domains[:min(len(domains), most)] {
		if d = strings.ToLower(strings.Trim(d, ".")); d != "" {
			s.domains = append(s.domains, d)
		}
	}
}

// set heeds what options say of dots.
func (s *search) set(options []string) {
	const most = 15 // which resolvers heed
	for _, option := range options {
		if text, ok := strings.CutPrefix(option, "ndots:"); ok {
			if n, err := strconv.Atoi(text); err == nil && n >= 0 {
				s.dots = min(n, most)
			}
		}
	}
}

// next returns what a program would ask for after a name, if there were none.
func (s *search) next(name string) []string {
	for i, domain := range s.domains {
		short, ok := strings.CutSuffix(name, "."+domain)
		if !ok || short == "" || strings.Count(short, ".") >= s.dots {
			continue
		}
		var names []string
		for _, other := range s.domains[i+1:] {
			names = append(names, short+"."+other)
		}
		return append(names, short)
	}
	return nil
}
