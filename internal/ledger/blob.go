package ledger

import (
	"encoding/binary"
	"errors"
)

// A row of the journal is a byte for the form (1), then for each key its number in
// the table of keys and the four counts, as unsigned varints.
const blobForm = 1

var errBlob = errors.New("a row of the journal is damaged")

// appendCounts writes one key's counts behind b.
func appendCounts(b []byte, key int64, c Counts) []byte {
	for _, n := range [...]int64{key, c.Sessions, c.Refused, c.Up, c.Down} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

// eachCounts calls f for each key of a row. What f was called for before an error
// is not to be used.
func eachCounts(b []byte, f func(key int64, c Counts)) error {
	if len(b) == 0 || b[0] != blobForm {
		return errBlob
	}
	for b = b[1:]; len(b) > 0; {
		var n [5]int64
		for i := range n {
			value, size := binary.Uvarint(b)
			if size <= 0 || int64(value) < 0 {
				return errBlob
			}
			n[i], b = int64(value), b[size:]
		}
		f(n[0], Counts{n[1], n[2], n[3], n[4]})
	}
	return nil
}
