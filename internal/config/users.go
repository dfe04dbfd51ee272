package config

// decodeUsers fills in s.Users.
func (d *decoder) decodeUsers(n *node) {
	d.usersSet = true
	d.mapping(n, fields{
		"file": func(v *node) {
			d.settings.Users.File = d.file(v, "`sallyport user add NAME --file FILE` makes it")
		},
		"ledger": func(v *node) { d.settings.Users.Ledger = d.inLedger(v) },
	})
	switch {
	case n.kind != mapping:
	case !n.has("file") && !n.has("ledger"):
		d.fail(n, "the users have no file", "write `users: {file: users}`, or `users: {ledger: true}` if the ledger has them")
	case n.has("file") && n.has("ledger"):
		d.fail(n, "the users are in a file, or in the ledger", "write `users: {file: users}` or `users: {ledger: true}`")
	}
}

// inLedger takes a true that says that the ledger has something.
func (d *decoder) inLedger(n *node) bool {
	if n.kind != scalar || !n.plain || n.text != "true" {
		d.fail(n, "expected true, found "+n.describe(), "leave it out where the ledger does not have it")
		return false
	}
	d.needLedger = append(d.needLedger, n)
	return true
}

// ledgerReferences checks that there is a ledger where it is to have something.
func (d *decoder) ledgerReferences() {
	for _, n := range d.sharedRates {
		if n.text == "true" && d.settings.Ledger.URL == "" {
			d.fail(n, "a rate is shared by the servers of a PostgreSQL ledger, and there is none", "leave it out, or write `ledger: postgres://USER@HOST/DATABASE`")
		}
	}
	if !d.settings.Ledger.Off {
		return
	}
	for _, n := range d.needLedger {
		d.fail(n, "the ledger is to have this, and `ledger` is off", "name a ledger: `ledger: postgres://USER@HOST/DATABASE`")
	}
}
