package config

// decodeUsers fills in s.Users.
func (d *decoder) decodeUsers(n *node) {
	d.usersSet = true
	d.mapping(n, fields{
		"file": func(v *node) {
			d.settings.Users.File = d.file(v, "`sallyport user add NAME --file FILE` makes it")
		},
	})
	if n.kind == mapping && !n.has("file") {
		d.fail(n, "the users have no file", "write `users: {file: users}`")
	}
}
