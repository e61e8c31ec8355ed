// Package lifecycle starts parts in order and stops them in reverse under one
// deadline.
//
// A part registers its stop the moment it is started, so a failed start
// unwinds the same way as an orderly stop. All stops run, whatever the others
// return, and their errors are joined.
package lifecycle
