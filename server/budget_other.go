//go:build !unix

package server

// connectionBudget returns how many client connections may be open: this
// system has no limit of descriptors to ask for.
func connectionBudget() int { return unlimitedConnections }
