//go:build race

package nrtest

// underRace is set when the race detector makes every step some ten times as dear; the tests then run fewer schedules.
const underRace = true
