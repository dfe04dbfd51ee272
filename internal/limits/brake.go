package limits

import "github.com/sallyport/sallyport/server"

// Brake returns pacers by which a session moves no more than so many bits a second,
// both directions together.
func Brake(bits int64) (up, down server.Pacer) {
	part := &share{shaper: &shaper{}}
	part.shaper.set(float64(bits)/8, 0)
	return &pacer{lanes: []*lane{{share: part}}, isUp: true}, &pacer{lanes: []*lane{{share: part}}}
}
