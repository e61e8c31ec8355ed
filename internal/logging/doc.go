// Package logging makes the one logger of a process from its options.
//
// Everything below main gets that logger passed in: there is no global one.
package logging
