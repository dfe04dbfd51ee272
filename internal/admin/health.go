package admin

import "time"

// Health is how the server and what it needs are.
type Health interface {
	// Health returns that. It may wait for a reload to end.
	Health() HealthReport
}

// HealthReport is how things are.
type HealthReport struct {
	Ledger       *Ledger       `json:"ledger,omitempty" doc:"Where what was used is kept"`
	Resolver     string        `json:"resolver" doc:"Who looks names up"`
	NoName       uint64        `json:"no_name" doc:"Sessions whose target's name has no address"`
	NoIdentd     uint64        `json:"no_identd" doc:"Sessions whose client's identd did not answer"`
	OtherUser    uint64        `json:"other_user" doc:"Sessions whose client's identd named somebody else"`
	Upstreams    []Upstream    `json:"upstreams"`
	Certificates []Certificate `json:"certificates"`
	Reload       *Reload       `json:"last_reload,omitempty"`
}

// Upstream is a proxy of one.
type Upstream struct {
	Name  string `json:"name"`
	Proxy string `json:"proxy" doc:"Its URL, without a login"`
	Up    bool   `json:"up"`
}

// Certificate is one that clients are shown.
type Certificate struct {
	Listener string    `json:"listener"`
	File     string    `json:"file"`
	Subject  string    `json:"subject,omitempty"`
	Expires  time.Time `json:"expires,omitzero"`
	Fault    string    `json:"fault,omitempty" doc:"Why it cannot be read"`
}
