// Package page is a runtime for development: instances are pages that this
// process serves itself, without containers, root or isolation.
//
// It exists so that people can try the API on a laptop. Every page says what
// it is. Instances end with the process, and no checkpoints are made.
package page
