package pac

// program is the part of the script that is always the same. The script's variables are
// before it.
const program = `
// The address that a host is, as groups of 16 bits; null: it is a name.
function address(host) {
	var four = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(host);
	if (four) return [four[1] * 256 + +four[2], four[3] * 256 + +four[4]];
	if (host.indexOf(":") < 0) return null;
	var end = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(host);
	if (end) host = end[1] + (end[2] * 256 + +end[3]).toString(16) + ":" + (end[4] * 256 + +end[5]).toString(16);
	var halves = host.split("::");
	var first = halves[0] ? halves[0].split(":") : [];
	var last = halves.length > 1 && halves[1] ? halves[1].split(":") : [];
	var groups = [], i;
	for (i = 0; i < first.length; i++) groups.push(parseInt(first[i], 16));
	for (i = first.length + last.length; i < 8; i++) groups.push(0);
	for (i = 0; i < last.length; i++) groups.push(parseInt(last[i], 16));
	for (i = 0; i < 5; i++) if (groups[i] !== 0) return groups;
	return groups[5] === 65535 ? groups.slice(6) : groups; // IPv4, written as IPv6
}

function isIn(groups, net) {
	if (groups.length !== net.of) return false;
	for (var i = 0; i < net.groups.length; i++) {
		var rest = Math.max(0, 16 * (i + 1) - net.bits);
		if (groups[i] >> rest !== net.groups[i] >> rest) return false;
	}
	return true;
}

function isAmong(host, groups, places) {
	var i;
	if (groups) {
		for (i = 0; i < places.nets.length; i++) if (isIn(groups, places.nets[i])) return true;
		return false;
	}
	for (i = 0; i < places.names.length; i++) if (host === places.names[i]) return true;
	for (i = 0; i < places.below.length; i++) {
		var end = "." + places.below[i], at = host.length - end.length;
		if (at > 0 && host.substring(at) === end) return true;
	}
	return false;
}

function FindProxyForURL(url, host) {
	host = host.toLowerCase().replace(/^\[/, "").replace(/\]$/, "").replace(/%.*$/, "").replace(/\.$/, "");
	var groups = address(host);
	if (isAmong(host, groups, direct)) return "DIRECT";
	if (isAmong(host, groups, through)) return proxies;
	if (plain && !groups && host.indexOf(".") < 0) return "DIRECT";
	return isAmong(host, groups, local) ? "DIRECT" : proxies;
}
`
