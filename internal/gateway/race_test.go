//go:build race

package gateway

// raceDetector tells whether the tests run with it.
const raceDetector = true
