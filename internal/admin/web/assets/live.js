// Keeps the live part of a page up to date. What the server sends is the same HTML as
// in the page; only what differs is changed, so that whoever types, tabs or reads
// there is not disturbed. Rows are told apart by their id: a button that has the
// focus stays the button of the same session.

const region = document.getElementById("live");

function update(now, next) {
	if (now.nodeType !== next.nodeType || now.nodeName !== next.nodeName) {
		now.replaceWith(next.cloneNode(true));
		return;
	}
	if (now.nodeType === Node.TEXT_NODE) {
		if (now.data !== next.data) now.data = next.data;
		return;
	}
	if (now.nodeType !== Node.ELEMENT_NODE || next.hasAttribute("data-same")) return;
	for (const { name } of [...now.attributes]) if (!next.hasAttribute(name) && name !== "open") now.removeAttribute(name);
	for (const { name, value } of next.attributes) if (now.getAttribute(name) !== value) now.setAttribute(name, value);
	updateChildren(now, next);
}

function updateChildren(now, next) {
	const known = new Map();
	for (const child of now.children) if (child.id) known.set(child.id, child);
	let at = now.firstChild;
	for (const wanted of next.childNodes) {
		const same = wanted.id ? known.get(wanted.id) : null;
		if (same) {
			if (same === at) at = at.nextSibling;
			else now.insertBefore(same, at);
			update(same, wanted);
		} else if (at && !at.id && !wanted.id && at.nodeName === wanted.nodeName) {
			const after = at.nextSibling;
			update(at, wanted);
			at = after;
		} else {
			now.insertBefore(wanted.cloneNode(true), at);
		}
	}
	while (at) {
		const after = at.nextSibling;
		at.remove();
		at = after;
	}
}

// What can be done with a row does not change while it is there: parsed for each update,
// it would be more than half of what the browser has to clear away.
function withoutDeeds(html) {
	return html.replace(/<tr id="([^"]*)">(.*)<td class="do">.*<\/td><\/tr>/g, (row, id, cells) =>
		document.getElementById(id) ? `<tr id="${id}">${cells}<td class="do" data-same></td></tr>` : row);
}

function parse(html) {
	return new DOMParser().parseFromString(html, "text/html").body;
}

function show(html) {
	const focused = document.activeElement?.id;
	if (region.firstChild?.nodeType === Node.TEXT_NODE) region.firstChild.remove(); // the blank that no parsed page begins with
	updateChildren(region, parse(withoutDeeds(html)));
	if (region.querySelector("[data-same]")) updateChildren(region, parse(html)); // a row that was there has gone elsewhere
	if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

let source;

function watch() {
	source?.close();
	source = undefined;
	if (document.hidden) return;
	source = new EventSource(region.dataset.live);
	source.onmessage = (event) => show(event.data);
}

if (region) {
	document.addEventListener("visibilitychange", watch);
	watch();
}
