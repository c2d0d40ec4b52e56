// Reads configurations of the device plugin as NVIDIA's device plugin and GPU Feature Discovery read them: a JSON object of
// texts by name comes in, and what NVIDIA's own code made of each goes out. A field that it does not know is an error.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	spec "github.com/NVIDIA/k8s-device-plugin/api/config/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	texts := map[string]string{}
	if err := json.NewDecoder(os.Stdin).Decode(&texts); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	read := map[string]spec.Config{}
	for name, text := range texts {
		config := spec.Config{}
		if err := yaml.UnmarshalStrict([]byte(text), &config); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
		if config.Version != spec.Version {
			fmt.Fprintf(os.Stderr, "%s: unknown version: %q\n", name, config.Version)
			os.Exit(1)
		}
		spec.DisableResourceNamingInConfig(&config)
		read[name] = config
	}
	json.NewEncoder(os.Stdout).Encode(read)
}
