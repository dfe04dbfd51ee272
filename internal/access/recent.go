package access

// recent is a map that forgets: it holds at least limit entries, those that
// were used last, and at most twice as many. Not safe for concurrent use.
type recent[K comparable, V any] struct {
	limit    int
	now, old map[K]V
}

func (r *recent[K, V]) get(key K) (V, bool) {
	if v, ok := r.now[key]; ok {
		return v, true
	}
	v, ok := r.old[key]
	if ok {
		delete(r.old, key)
		r.put(key, v)
	}
	return v, ok
}

func (r *recent[K, V]) put(key K, v V) {
	if _, there := r.now[key]; r.now == nil || !there && len(r.now) >= r.limit {
		r.now, r.old = map[K]V{}, r.now
	}
	r.now[key] = v
}

func (r *recent[K, V]) remove(key K) {
	delete(r.now, key)
	delete(r.old, key)
}
