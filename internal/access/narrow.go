package access

import (
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// A narrowing takes the rules out of the candidates of which the index knows that
// one of their conditions does not hold.
type narrowing struct {
	by     Condition
	narrow func(*decision)
}

// What is looked at before any rule is.
var (
	ofListener  = []narrowing{{MissListeners, (*decision).narrowToListener}, {MissProtocols, (*decision).narrowToProtocol}}
	ofCommand   = []narrowing{{MissCommands, (*decision).narrowToCommand}}
	ofPort      = []narrowing{{MissPorts, (*decision).narrowToPort}}
	ofClient    = []narrowing{{MissFrom, (*decision).narrowToClient}}
	ofUser      = []narrowing{{MissUsers, (*decision).narrowToUser}}
	ofTarget    = []narrowing{{MissTo, (*decision).narrowToTarget}}
	ofLogin     = slices.Concat(ofListener, ofClient)
	ofReach     = slices.Concat(ofListener, ofCommand, ofClient)
	ofAssociate = slices.Concat(ofListener, ofCommand, ofClient, ofUser)
	ofRequest   = slices.Concat(ofListener, ofCommand, ofPort, ofClient, ofUser, ofTarget)
)

// narrow leaves the candidates for which all of that holds.
func (d *decision) narrow(to []narrowing) {
	if len(d.policy.rules) == 0 {
		return
	}
	for _, n := range to {
		n.narrow(d)
	}
}

func (d *decision) narrowToListener() {
	d.policy.index.listeners.narrow(d.candidates, d.scratch, d.request.Listener)
}

func (d *decision) narrowToProtocol() {
	d.policy.index.protocols.narrow(d.candidates, d.scratch, d.request.Protocol)
}

func (d *decision) narrowToCommand() {
	d.policy.index.commands.narrow(d.candidates, d.scratch, d.request.Command)
}

func (d *decision) narrowToPort() {
	d.policy.index.ports.narrow(d.candidates, d.scratch, d.request.Target.Port)
}

func (d *decision) narrowToClient() {
	x, client := &d.policy.index, d.request.Client.Addr().WithZone("")
	copy(d.scratch, x.fromAnyone)
	x.from.addTo(d.scratch, client, &d.policy.own)
	for i := range x.sets {
		if from := x.sets[i].from; from.meets(d.candidates) && d.set(i).hasAddr(client) {
			from.addTo(d.scratch)
		}
	}
	d.candidates.and(d.scratch)
}

// narrowToUser leaves out the rules that are for other users than the one that
// the client has shown or, where a rule may believe that, claims to be.
func (d *decision) narrowToUser() {
	x, shown := &d.policy.index, d.request.Identity
	d.list(shown.Name)
	switch {
	case shown.Name == "":
	case d.proven():
		d.leaveOut(x.takes[shown.Proof])
	case d.claims():
		d.leaveOut(x.takes[server.Claimed])
		d.leaveOut(x.takes[server.Ident])
	}
}

// list finds the rules that list a user.
func (d *decision) list(user string) {
	copy(d.users, d.policy.index.users.silent)
	d.policy.index.users.by[user].addTo(d.users)
}

// leaveOut takes the rules out of the candidates that do not list the user.
func (d *decision) leaveOut(rules bits) {
	for i, w := range rules {
		d.candidates[i] &^= w &^ d.users[i]
	}
}

// narrowToTarget leaves the rules that list the target's name, or networks. Where
// the target is an address, it is one of those.
func (d *decision) narrowToTarget() {
	x, host := &d.policy.index, d.request.Target.Name
	clear(d.named)
	copy(d.networks, x.toNetworks)
	switch {
	case host == "" && len(d.held) > 0 && !d.forAnyPeer():
		d.setTargets(d.held...)
	case host == "":
		d.setTargets(d.request.Target.IP)
	case d.virtual:
		d.narrowToName(host)
		return
	default:
		d.narrowToName(host)
		if len(d.held) > 0 {
			d.setTargets(d.held...)
		}
		return
	}
	copy(d.scratch, d.targets[0].within)
	if d.forAnyPeer() {
		d.scratch.or(x.anyPeer)
	}
	d.candidates.and(d.scratch)
}

func (d *decision) narrowToName(host string) {
	x := &d.policy.index
	x.names.addTo(d.named, host)
	for i := range x.sets {
		to := x.sets[i].to
		if !to.meets(d.candidates) {
			continue
		}
		set := d.set(i)
		if set.hasHost(host) {
			to.addTo(d.named)
		}
		if set.hasNetworks() {
			to.addTo(d.networks)
		}
	}
	copy(d.scratch, d.named)
	d.scratch.or(d.networks)
	d.candidates.and(d.scratch)
}

// setTargets notes the target's addresses. They use the memory again of those
// that were there before.
func (d *decision) setTargets(addrs ...netip.Addr) {
	x := &d.policy.index
	d.targets, d.resolved = slices.Grow(d.targets[:0], len(addrs))[:len(addrs)], true
	for i, a := range addrs {
		t := &d.targets[i]
		if len(t.within) != len(x.all) {
			t.within = newBits(len(d.policy.rules))
		}
		clear(t.within)
		t.addr, t.decided, t.hit = a.WithZone(""), false, false
		x.to.addTo(t.within, t.addr, &d.policy.own)
		for number := range x.sets {
			if to := x.sets[number].to; to.meets(d.candidates) && d.set(number).hasAddr(t.addr) {
				to.addTo(t.within)
			}
		}
	}
}

// forAnyPeer reports whether the request is a BIND for whoever connects.
func (d *decision) forAnyPeer() bool {
	return d.request.Command == socks.Bind && d.request.Target.IP.IsUnspecified()
}

// set returns the content of a set, the same for all of the decision.
func (d *decision) set(number int) content {
	if d.sets[number] == nil {
		d.sets[number] = *d.policy.index.sets[number].set.now.Load()
	}
	return d.sets[number]
}
