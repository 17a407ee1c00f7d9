//go:build linux

package main

import (
	"slices"
	"testing"

	"swivel/internal/resolver"
)

func TestRank(t *testing.T) {
	for _, tt := range []struct {
		name             string
		records          []resolver.Service
		standby, weights []int
	}{
		{"none", nil, nil, nil},
		{"no weights", []resolver.Service{{Priority: 5}, {Priority: 5}}, []int{0, 0}, []int{1, 1}},
		{"priorities", []resolver.Service{{Priority: 0, Weight: 3}, {Priority: 10, Weight: 1}, {Priority: 10, Weight: 0}, {Priority: 65535, Weight: 7}},
			[]int{0, 1, 1, 2}, []int{3, 1, 1, 7}},
		{"great weights", []resolver.Service{{Weight: 65535}, {Weight: 32768}, {Weight: 1}, {Priority: 1, Weight: 2}},
			[]int{0, 0, 0, 1}, []int{1000, 500, 1, 2}},
	} {
		standby, weights := rank(tt.records)
		if !slices.Equal(standby, tt.standby) || !slices.Equal(weights, tt.weights) {
			t.Errorf("%s: got %v and %v, want %v and %v", tt.name, standby, weights, tt.standby, tt.weights)
		}
	}
}
