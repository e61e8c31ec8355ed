// Package config fills a program's options from one YAML file, the
// environment and flags.
//
// Precedence is flag, environment, file, default. Unknown keys are errors.
// Secrets are never options: an option names the file that holds one.
package config
