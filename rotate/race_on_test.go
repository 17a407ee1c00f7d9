//go:build race

package rotate

func init() { raceDetector = true }
