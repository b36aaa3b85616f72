// Renders a Helm chart the way Helm does: text/template with the sprig functions, include, toYaml (block style).
// Helm itself is in no distribution package; this is enough to prove that a chart renders and what it renders.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "render-chart:", err)
		os.Exit(1)
	}
}

// yaml writes what json.Unmarshal can have made, keys sorted.
func yaml(value any, indent string) string {
	var out strings.Builder
	switch value := value.(type) {
	case map[string]any:
		keys := make([]string, 0, len(value))
		for key := range value {
			keys = append(keys, key)
		}
		sort.Strings(keys)
		for _, key := range keys {
			if inner, ok := value[key].(map[string]any); ok && len(inner) > 0 {
				fmt.Fprintf(&out, "%s%s:\n%s", indent, key, yaml(inner, indent+"  "))
			} else {
				fmt.Fprintf(&out, "%s%s: %s", indent, key, yaml(value[key], ""))
			}
		}
	default:
		text, err := json.Marshal(value)
		check(err)
		fmt.Fprintf(&out, "%s\n", text)
	}
	if out.Len() == 0 {
		return "{}\n"
	}
	return out.String()
}

func main() { // render-chart CHART-DIRECTORY VALUES.json
	var values map[string]any
	text, err := os.ReadFile(os.Args[2])
	check(err)
	check(json.Unmarshal(text, &values))
	root := template.New("chart").Funcs(sprig.TxtFuncMap())
	root.Funcs(template.FuncMap{
		"include": func(name string, data any) (string, error) {
			var out bytes.Buffer
			err := root.ExecuteTemplate(&out, name, data)
			return out.String(), err
		},
		"toYaml": func(value any) string { return strings.TrimRight(yaml(value, ""), "\n") },
	})
	files, err := filepath.Glob(filepath.Join(os.Args[1], "templates", "*"))
	check(err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(err)
		_, err = root.New(filepath.Base(file)).Parse(string(text))
		check(err)
	}
	data := map[string]any{"Values": values, "Release": map[string]any{"Name": "apus", "Namespace": "openstack"}}
	for _, file := range files {
		if strings.HasSuffix(file, ".yaml") {
			fmt.Println("---")
			check(root.ExecuteTemplate(os.Stdout, filepath.Base(file), data))
		}
	}
}
