//go:build !race

package nrtest

const underRace = false
