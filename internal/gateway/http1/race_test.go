//go:build race

package http1_test

// raceDetector tells that pools forget what they are given now and then.
const raceDetector = true
