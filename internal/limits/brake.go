package limits

import "github.com/sallyport/sallyport/server"

// Brake returns pacers by which a session moves no more than so many bits a second,
// both directions together.
func Brake(bits int64) (up, down server.Pacer) {
	one := newShaper()
	one.set(float64(bits)/8, 0)
	s := &stay{of: []*holding{{counter: &counter{up: one, down: one}}}}
	return (*upward)(s), (*downward)(s)
}
