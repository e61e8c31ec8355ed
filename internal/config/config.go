package config

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/pflag"
)

// ErrHelp says that the help was asked for and printed.
var ErrHelp = pflag.ErrHelp

// Program is what a program is started with.
type Program struct {
	Name      string   // for the help and the prefix of its environment
	Args      []string // without the program's name
	LookupEnv func(string) (string, bool)
	Output    io.Writer // for the help
}

// Parse fills options, a pointer to a struct whose fields hold the defaults.
// Fields are named by their json tags and explained by their help tags; a
// field http.listen is the key listen below http in the file, the variable
// DEMO_<PROGRAM>_HTTP_LISTEN and the flag --http-listen. Lists of structs come
// from the file only. Where options have a Validate method it is called last.
//
// check reports that --check was given: the program should say nothing and
// end. The error is [ErrHelp] after --help.
func Parse(p Program, options any) (check bool, err error) {
	leaves := leavesOf(reflect.ValueOf(options).Elem(), nil)
	flags := pflag.NewFlagSet(p.Name, pflag.ContinueOnError)
	flags.SetOutput(p.Output)
	flags.SortFlags = false
	flags.Usage = func() {
		fmt.Fprintf(p.Output, "Usage: %s [flags]\n\n%s", p.Name, flags.FlagUsages())
	}
	file := flags.String("config", "", "YAML file with the configuration")
	flags.BoolVar(&check, "check", false, "check the configuration and exit")
	given := map[string]string{}
	for _, l := range leaves {
		flags.Var(&recorded{leaf: l, given: given}, l.flag(), l.help)
		if l.value.Kind() == reflect.Bool {
			flags.Lookup(l.flag()).NoOptDefVal = "true"
		}
	}
	if err := flags.Parse(p.Args); err != nil {
		return false, err
	}
	if flags.NArg() > 0 {
		return false, fmt.Errorf("unexpected argument %q; see --help", flags.Arg(0))
	}
	if *file == "" {
		*file, _ = p.LookupEnv(envName(p.Name, "config"))
	}
	if *file != "" {
		data, err := os.ReadFile(*file)
		if err != nil {
			return false, fmt.Errorf("read the configuration: %w", err)
		}
		if err := DecodeStrict(data, options); err != nil {
			return false, fmt.Errorf("%s: %w", *file, err)
		}
	}
	// The file may have replaced what the leaves pointed at.
	for _, l := range leavesOf(reflect.ValueOf(options).Elem(), nil) {
		if text, ok := p.LookupEnv(envName(p.Name, l.flag())); ok {
			if err := l.set(text); err != nil {
				return false, fmt.Errorf("environment variable %s: %w", envName(p.Name, l.flag()), err)
			}
		}
		if text, ok := given[l.flag()]; ok {
			if err := l.set(text); err != nil {
				return false, fmt.Errorf("flag --%s: %w", l.flag(), err)
			}
		}
	}
	if v, ok := options.(interface{ Validate() error }); ok {
		return check, v.Validate()
	}
	return check, nil
}

// DecodeStrict decodes one YAML document. Unknown keys and repeated keys are
// errors that name the line.
func DecodeStrict(data []byte, into any) error {
	var document any
	if err := yaml.Unmarshal(data, &document); err == nil && document == nil {
		return nil // an empty document leaves everything as it is
	}
	if err := yaml.UnmarshalWithOptions(data, into, yaml.Strict()); err != nil {
		return errors.New(strings.TrimSpace(yaml.FormatError(err, false, true)))
	}
	return nil
}

// leaf is one settable option.
type leaf struct {
	path  []string
	help  string
	value reflect.Value
}

func leavesOf(v reflect.Value, path []string) []leaf {
	var leaves []leaf
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		at := append(append([]string(nil), path...), name)
		field := v.Field(i)
		switch {
		case settable(field):
			leaves = append(leaves, leaf{path: at, help: f.Tag.Get("help"), value: field})
		case field.Kind() == reflect.Struct:
			leaves = append(leaves, leavesOf(field, at)...)
		}
	}
	return leaves
}

func asText(v reflect.Value) (encoding.TextUnmarshaler, bool) {
	t, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	return t, ok
}

func settable(v reflect.Value) bool {
	if _, ok := asText(v); ok {
		return true
	}
	switch v.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64, reflect.Float64:
		return true
	case reflect.Slice:
		return v.Type().Elem().Kind() == reflect.String
	default:
		return false
	}
}

func (l leaf) flag() string { return strings.ReplaceAll(strings.Join(l.path, "-"), "_", "-") }

func envName(program, flag string) string {
	return "DEMO_" + strings.ToUpper(strings.ReplaceAll(program+"_"+flag, "-", "_"))
}

// set parses text into the option.
func (l leaf) set(text string) error {
	if t, ok := asText(l.value); ok {
		return t.UnmarshalText([]byte(text))
	}
	switch l.value.Kind() {
	case reflect.String:
		l.value.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		l.value.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		l.value.SetInt(n)
	case reflect.Float64:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", text)
		}
		l.value.SetFloat(n)
	case reflect.Slice:
		list := reflect.MakeSlice(l.value.Type(), 0, 0)
		for word := range strings.SplitSeq(text, ",") {
			if word = strings.TrimSpace(word); word != "" {
				list = reflect.Append(list, reflect.ValueOf(word).Convert(l.value.Type().Elem()))
			}
		}
		l.value.Set(list)
	}
	return nil
}

// text spells the option's value as set would read it.
func (l leaf) text() string {
	if m, ok := l.value.Interface().(encoding.TextMarshaler); ok {
		if b, err := m.MarshalText(); err == nil {
			return string(b)
		}
	}
	if l.value.Kind() == reflect.Slice {
		words := make([]string, l.value.Len())
		for i := range words {
			words[i] = l.value.Index(i).String()
		}
		return strings.Join(words, ",")
	}
	return fmt.Sprint(l.value.Interface())
}

// recorded is a flag that is kept until file and environment have been read.
type recorded struct {
	leaf  leaf
	given map[string]string
}

func (r *recorded) String() string {
	if r.leaf.value.IsValid() {
		return r.leaf.text()
	}
	return ""
}

func (r *recorded) Set(text string) error {
	r.given[r.leaf.flag()] = text
	return nil
}

func (r *recorded) Type() string {
	switch {
	case r.leaf.value.Kind() == reflect.Bool:
		return "bool"
	case r.leaf.value.Kind() == reflect.Slice:
		return "list"
	default:
		return "value"
	}
}
