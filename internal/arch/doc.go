// Package arch tests the architecture: who may import whom, and that every
// package says what it is. It holds no code outside its tests.
package arch
