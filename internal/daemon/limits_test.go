//go:build unix

package daemon

import (
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestLimitsOfRules: what the settings say of a rule's limits holds for its
// sessions, and a reload changes it for those that are open, which go on counting.
func TestLimitsOfRules(t *testing.T) {
	const rules = oneListener + "groups: {staff: [alice, bob, bob]}\n" +
		"rules: [{allow: few, to: 127.0.0.1, users: any, proof: claimed, limits: [few, much]}, {allow: all, to: any}]\n"
	const much = ", much: {quota: 1 GiB, every: day, per: user}}\n"
	s := serveIn(t, rules+"limits: {few: {sessions: 1, per: group}"+much)
	echo, other := proxytest.Echo(t, "127.0.0.1"), proxytest.Echo(t, "127.0.0.2")
	alice := s.connects(s.at("lan"), "alice", echo)
	proxytest.Granted4(t, alice)
	proxytest.Refused4(t, s.connects(s.at("lan"), "bob", echo), 91) // is in the same group
	proxytest.Granted4(t, s.connects(s.at("lan"), "carol", echo))   // is in none
	proxytest.Refused4(t, s.connects(s.at("lan"), "dave", echo), 91)
	proxytest.Granted4(t, s.connects(s.at("lan"), "bob", other)) // another rule, without limits

	s.reloads(rules + "limits: {few: {sessions: 2, per: group}" + much)
	lives(t, "who was there", alice)
	proxytest.Granted4(t, s.connects(s.at("lan"), "bob", echo))
	proxytest.Refused4(t, s.connects(s.at("lan"), "bob", echo), 91)

	s.reloads(rules + "limits: {few: {rate: 1 Gbit/s, per: server}" + much)
	lives(t, "who was there", alice)
	proxytest.Granted4(t, s.connects(s.at("lan"), "bob", echo))
}
